//! The scripts that mirror [`record::apply`](crate::record::apply), and how one
//! is called and answers. They match the record's first line as text and never
//! read the JSON behind it.

use std::sync::LazyLock;

use bytes::Bytes;
use redis::{Cmd, RedisWrite, ToRedisArgs, Value};

use crate::key::{Fingerprint, LeaseId, RecordName, push_hex};
use crate::record::{Content, version};
use crate::store::BoxFuture;
use crate::store::redis::connection::command_error::CommandError;
use crate::store::redis::connection::transport::Transport;

/// Up to this many bytes a write is let through on a server that is out of
/// memory: it replaces a record of about its size, and frees more than it takes
/// where it settles a key. Whatever is larger is refused, and its caller
/// completes without the body. A lock with the longest names of a request, sealed, is
/// smaller.
const MAX_OOM_WRITE_BYTES: usize = 4096;

/// The largest record that is read or written, in bytes: no command on the connection
/// that all share carries or returns more. The body of a larger outcome is apart.
/// What is larger was not written by this crate, and is not fetched.
pub(crate) const MAX_RECORD_BYTES: usize = 64 << 10;

/// One script in all its forms.
pub(crate) struct Script {
    standalone: ScriptVariants,
    /// For clusters: notices stay within the shard.
    sharded: ScriptVariants,
}

struct ScriptVariants {
    ordinary: ScriptSource,
    /// The same one, not subject to `maxmemory` (Redis 7.0 and later).
    allow_oom: ScriptSource,
}

struct ScriptSource {
    code: String,
    sha1: String,
}

impl Script {
    fn new(code: &str) -> Self {
        let code = code.replace("MAX_RECORD_BYTES", &MAX_RECORD_BYTES.to_string());
        let code = code.replace("FORMAT_VERSION", version());
        Self {
            sharded: ScriptVariants::new(&code.replace("'PUBLISH'", "'SPUBLISH'")),
            standalone: ScriptVariants::new(&code),
        }
    }

    /// Runs the script on one key, in one round trip where the server has it.
    pub(crate) async fn run(
        &self,
        transport: &impl Transport,
        key: &str,
        args: &ScriptArgs,
    ) -> Result<Value, CommandError> {
        let forms = self.forms(transport);
        let source = match args.bytes() <= MAX_OOM_WRITE_BYTES {
            true => &forms.allow_oom,
            false => &forms.ordinary,
        };
        source.run(transport, key, args).await
    }

    /// Runs a script that only reads, which a server that takes no writes does
    /// as well: it would not run one that says by its flags that it may write.
    pub(crate) async fn read(
        &self,
        transport: &impl Transport,
        key: &str,
    ) -> Result<Value, CommandError> {
        self.forms(transport)
            .ordinary
            .run(transport, key, &ScriptArgs::default())
            .await
    }

    fn forms(&self, transport: &impl Transport) -> &ScriptVariants {
        match transport.is_sharded() {
            true => &self.sharded,
            false => &self.standalone,
        }
    }
}

impl ScriptVariants {
    fn new(code: &str) -> Self {
        let source = |code: String| ScriptSource {
            sha1: redis::Script::new(&code).get_hash().into(),
            code,
        };
        Self {
            ordinary: source(code.to_owned()),
            allow_oom: source(format!("#!lua flags=allow-oom\n{code}")),
        }
    }
}

impl ScriptSource {
    /// On `NOSCRIPT` nothing was run, and `EVAL` takes the script along; loading
    /// it first would take another round trip, in a cluster one to every node.
    async fn run(
        &self,
        transport: &impl Transport,
        key: &str,
        args: &ScriptArgs,
    ) -> Result<Value, CommandError> {
        let call = call("EVALSHA", &self.sha1, key, args);
        match transport.command(key, &call).await {
            Err(failure) if failure.code() == Some("NOSCRIPT") => {
                self.load_and_run(transport, key, args).await
            }
            answer => answer,
        }
    }

    /// Apart and boxed, since it is rare: no other call carries its room about.
    fn load_and_run<'a>(
        &'a self,
        transport: &'a impl Transport,
        key: &'a str,
        args: &'a ScriptArgs,
    ) -> BoxFuture<'a, Result<Value, CommandError>> {
        Box::pin(async move {
            let call = call("EVAL", &self.code, key, args);
            transport.command(key, &call).await
        })
    }
}

fn call(command: &str, script: &str, key: &str, args: &ScriptArgs) -> Cmd {
    let words = [command, script, key];
    let bytes = args.bytes() + words.map(str::len).iter().sum::<usize>() + 1;
    let mut call = Cmd::with_capacity(args.ends.len() + 4, bytes);
    call.arg(command).arg(script).arg(1).arg(key).arg(args);
    call
}

/// What an argument may be, written without the price of formatting.
pub(crate) trait ScriptArg {
    fn push(&self, to: &mut Vec<u8>);
}

impl ScriptArg for &str {
    fn push(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self.as_bytes());
    }
}

impl ScriptArg for LeaseId {
    fn push(&self, to: &mut Vec<u8>) {
        push_hex(to, self.as_bytes());
    }
}

impl ScriptArg for Fingerprint {
    fn push(&self, to: &mut Vec<u8>) {
        push_hex(to, self.as_bytes());
    }
}

macro_rules! numbers {
    ($($number:ty),+) => {$(
        impl ScriptArg for $number {
            fn push(&self, to: &mut Vec<u8>) {
                to.extend_from_slice(itoa::Buffer::new().format(*self).as_bytes());
            }
        }
    )+};
}

numbers!(u32, u64, usize);

/// The arguments of a script, written one behind the other.
#[derive(Default)]
pub(crate) struct ScriptArgs {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl ScriptArgs {
    /// Room for the terms of a holder and a few words besides, `content` bytes
    /// of which are a record's.
    pub(crate) fn with_room(content: usize) -> Self {
        Self {
            text: Vec::with_capacity(160 + content.min(MAX_RECORD_BYTES)),
            ends: Vec::with_capacity(8),
        }
    }

    /// One more: a word or a number.
    pub(crate) fn word(mut self, word: impl ScriptArg) -> Self {
        word.push(&mut self.text);
        self.end()
    }

    /// One more: what a record holds behind its first line.
    pub(crate) fn content(mut self, name: &RecordName, content: &Content) -> Self {
        content.write(name, &mut self.text);
        self.end()
    }

    /// The same within `limit` bytes, but for a body that does not fit.
    pub(crate) fn parted(
        mut self,
        name: &RecordName,
        content: &Content,
        limit: usize,
    ) -> (Self, Option<Bytes>) {
        let body = content.write_separate(name, &mut self.text, limit).cloned();
        (self.end(), body)
    }

    /// How many bytes they are together.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len()
    }

    fn end(mut self) -> Self {
        self.ends.push(self.text.len());
        self
    }
}

impl ToRedisArgs for ScriptArgs {
    fn write_redis_args<W: RedisWrite + ?Sized>(&self, out: &mut W) {
        let mut from = 0;
        for &end in &self.ends {
            out.write_arg(&self.text[from..end]);
            from = end;
        }
    }

    fn num_of_args(&self) -> usize {
        self.ends.len()
    }
}

/// A script from its parts, which lie beside this file.
macro_rules! script {
    ($name:ident, $($part:literal),+) => {
        pub(crate) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!($(include_str!($part)),+)));
    };
}

script!(
    TAKE_OVER,
    "grammar.lua",
    "common.lua",
    "claim.lua",
    "take_over.lua"
);
script!(
    EXTEND,
    "grammar.lua",
    "common.lua",
    "claim.lua",
    "extend.lua"
);
script!(ENTER, "grammar.lua", "common.lua", "claim.lua", "enter.lua");
script!(
    COMPLETE,
    "undisturbed.lua",
    "grammar.lua",
    "common.lua",
    "claim.lua",
    "complete.lua"
);
script!(
    RELEASE,
    "grammar.lua",
    "common.lua",
    "claim.lua",
    "release.lua"
);
script!(
    ABANDON,
    "grammar.lua",
    "common.lua",
    "claim.lua",
    "abandon.lua"
);
script!(RESOLVE, "grammar.lua", "common.lua", "resolve.lua");
script!(FORGET, "grammar.lua", "common.lua", "forget.lua");
script!(LOOK, "grammar.lua", "look.lua");
script!(MARKER, "marker.lua");
script!(PROVE, "prove.lua");
script!(IDENTIFY, "identify.lua");
script!(DISCARD, "grammar.lua", "discard.lua");
