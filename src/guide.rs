//! Guides, in the order of a reader: documentation only. Their examples are compiled
//! and run as tests of the crate.
//!
//! | guide | answers |
//! |---|---|
//! | [*getting started*](getting_started) | how do I embed the engine: requests, keys, answers, errors? |
//! | [*guarantees and their limits*](guarantees) | what can I rely on? |
//! | [*choosing policies*](policies) | which settings does my action need? |
//! | [*operating*](operating) | how do I run it: indeterminate keys, Redis, rotation, limits, capacity? |
//! | [*testing your service*](testing_your_service) | how do I test what embeds it? |
//! | [*writing a store*](writing_a_store) | how do I keep records in my own database? |
//! | [*design*](design) | why is it built like this? |
//! | [*contributing*](contributing) | how do I build, test and change it? |

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
