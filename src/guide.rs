//! Guides, in the order in which one needs them: documentation only. They hold
//! no code of the crate, and their examples are compiled and run as its tests.
//!
//! | guide | for whom |
//! |---|---|
//! | [*getting started*](getting_started) | who embeds the engine: requests, keys, answers, errors |
//! | [*guarantees and their limits*](guarantees) | who decides whether to trust it |
//! | [*choosing policies*](policies) | who sets it up for an action |
//! | [*operating*](operating) | who runs it: indeterminate keys, rotation, limits, capacity |
//! | [*writing a store*](writing_a_store) | who keeps records in a database of their own |
//! | [*testing your service*](testing_your_service) | who tests what embeds it |
//! | [*design*](design) | developers and reviewers: why it is built as it is |
//! | [*contributing*](contributing) | developers of the crate itself |

#[doc = include_str!("guide/getting_started.md")]
pub mod getting_started {}

#[doc = include_str!("guide/guarantees.md")]
pub mod guarantees {}

#[doc = include_str!("guide/policies.md")]
pub mod policies {}

#[doc = include_str!("guide/operating.md")]
pub mod operating {}

#[doc = include_str!("guide/writing_a_store.md")]
pub mod writing_a_store {}

#[doc = include_str!("guide/testing_your_service.md")]
pub mod testing_your_service {}

#[doc = include_str!("guide/design.md")]
pub mod design {}

#[doc = include_str!("guide/contributing.md")]
pub mod contributing {}
