//! What happens in one simulated run, as data: which caller requests what and when, what
//! platform, store and token endpoint do, and what is killed. The run itself decides nothing.

use serde::{Deserialize, Serialize};

/// Milliseconds of simulated time.
pub type Ms = u64;

/// One run. The seed also decides jitter, lease ids and latencies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    pub seed: u64,
    pub setup: Setup,
    /// Each step may be left out: the others still make a run.
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    pub engines: Vec<EngineSetup>,
    pub slots: Vec<Slot>,
    /// The longest time that a store command is on its way, there and back.
    pub latency: Ms,
    /// Whether the store notifies of changes; if not, waiters poll.
    pub notices: bool,
    /// How long a token lives; `None` if the platform needs none.
    pub token_life: Option<Ms>,
    /// Whether a hook is asked about indeterminate keys.
    pub hook: bool,
    /// After this time nothing fails.
    pub horizon: Ms,
    /// The oracle does not learn what the store loses: a test of the oracle.
    #[serde(default)]
    pub deceitful: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EngineSetup {
    pub lease: Ms,
    pub store_timeout: Ms,
    pub attempt_timeout: Ms,
    pub attempts: u32,
    pub retry_unknown: bool,
    pub fail_fast: bool,
    pub max_in_flight: usize,
    pub recent: Ms,
    pub result_ttl: Ms,
    /// Which of the two organisations it calls for.
    pub org: u8,
}

/// One record of the store, and the requests that name it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    pub action: u8,
    pub scope: bool,
    /// With a key of the caller's own, several payloads share it; without, each payload has
    /// a record of its own.
    pub own_key: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Step {
    Call(Call),
    /// What the platform does with the slot's next call that has no answer yet; further
    /// calls succeed at once.
    Answer {
        slot: u8,
        answer: Answer,
    },
    /// What the token endpoint does with its next request.
    Token(TokenAnswer),
    /// What the hook does at its next call; after that it returns what is true.
    Hook {
        after: Ms,
        says: HookSays,
    },
    /// The store is unreachable, for one engine or for all.
    Outage {
        at: Ms,
        engine: Option<u8>,
        lasts: Ms,
        fault: Fault,
    },
    /// The next commands of one engine fail.
    Blip {
        at: Ms,
        engine: u8,
        on: Command,
        fault: Fault,
        times: u8,
    },
    /// The store restarts with its content of that long ago; `None`: with nothing.
    Restart {
        at: Ms,
        back: Option<Ms>,
    },
    /// The store drops one record.
    Evict {
        at: Ms,
        slot: u8,
        variant: u8,
    },
    /// The platform revokes all tokens.
    Revoke {
        at: Ms,
    },
    /// One actor below the engine's root is killed; `child` counts from the oldest.
    Kill {
        at: Ms,
        engine: u8,
        child: u8,
    },
    /// An engine ends, and another one starts with a clock that has jumped.
    Replace {
        at: Ms,
        engine: u8,
        how: End,
        jump_seconds: i64,
    },
    /// An operator looks at a key, asks the remote system what is true, and resolves the
    /// key after a while.
    Resolve {
        at: Ms,
        engine: u8,
        slot: u8,
        variant: u8,
        after: Ms,
        blind: bool,
        tries: u8,
    },
    Forget {
        at: Ms,
        engine: u8,
        slot: u8,
        variant: u8,
    },
    List {
        at: Ms,
        engine: u8,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    pub at: Ms,
    pub engine: u8,
    pub slot: u8,
    pub variant: u8,
    pub by_message: bool,
    pub limit: Ms,
    /// The caller leaves after this long.
    pub leaves: Option<Ms>,
    pub ttl: Option<Ms>,
    pub sensitive: bool,
    /// How often the caller retries after an error, and after which pause.
    pub again: u8,
    pub pause: Ms,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The time until the connection is established: nothing has left before that.
    pub connect: Ms,
    /// The time from the arrival to the answer.
    pub delay: Ms,
    pub kind: Kind,
    /// Whether the request is executed, if the answer leaves that open.
    pub executes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Ok,
    /// 200 with a large body.
    Large,
    Forbidden,
    NotFound,
    Unauthorized,
    /// The platform's 429, with its seconds.
    Limited(u32),
    /// 429 with a `Retry-After` that is no plain number of seconds.
    OddLimit(u8),
    /// 403 with a body that is no JSON.
    Unreadable(u8),
    Timeout408,
    RelayedLimit,
    RelayedForbidden,
    RemoteLogin,
    Unavailable,
    Reset,
    Refused,
    Silent,
    Panic,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TokenAnswer {
    Late(Ms),
    Fail,
    Reject,
    Limited(u32),
    Silent,
    Panic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HookSays {
    Truth,
    Nothing,
    Panic,
    PanicWhenCalled,
    Hang,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// Not applied; the caller learns after this time that the command might have been
    /// applied.
    Fail(Ms),
    /// Applied, and the reply is lost.
    LoseReply,
    /// A write is refused, and certainly not applied.
    Refuse,
    /// Never answered; applied or not.
    Silent(bool),
    /// Applied at once, answered after this long.
    Late(Ms),
    /// Applied after this long, whether or not the caller still waits.
    Delayed(Ms),
}

/// Which commands a blip affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    Any,
    Look,
    Take,
    Extend,
    Enter,
    Finish,
    Resolve,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    Shutdown(Ms),
    Drop,
    KillRoot,
}

/// Payloads per own key.
pub const VARIANTS: u8 = 3;
