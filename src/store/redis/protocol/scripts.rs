//! The scripts that mirror [`record::apply`](crate::record::apply), and how they are called.
//! They match the record's first line as text and never read the JSON after it.

use std::sync::LazyLock;

use bytes::Bytes;
use redis::{Cmd, RedisWrite, ToRedisArgs, Value};

use crate::key::{Fingerprint, LeaseId, RecordName, push_hex};
use crate::record::{Content, MAGIC};
use crate::store::BoxFuture;
use crate::store::redis::connection::command_error::CommandError;
use crate::store::redis::connection::transport::Transport;

/// Writes up to this size are accepted on a server that is out of memory: such a write
/// replaces a record of about its size, and frees memory where it finishes a key. A larger
/// write is refused, and its caller completes without the body. A sealed lock with the
/// longest names of a request is smaller.
const MAX_OOM_WRITE_BYTES: usize = 4096;

/// The largest record that is read or written, in bytes: no command on the shared
/// connection sends or returns more. The body of a larger outcome is stored separately. A
/// larger value was not written by this crate, and is not fetched.
pub(crate) const MAX_RECORD_BYTES: usize = 64 << 10;

/// One script in all its variants.
pub(crate) struct Script {
    standalone: ScriptVariants,
    /// For clusters: notifications stay within the shard.
    sharded: ScriptVariants,
}

struct ScriptVariants {
    ordinary: ScriptSource,
    /// The same script, not subject to `maxmemory` (Redis 7.0 and later).
    allow_oom: ScriptSource,
}

struct ScriptSource {
    code: String,
    sha1: String,
}

impl Script {
    fn new(code: &str) -> Self {
        let code = code.replace("-- INCLUDE holder functions\n", HOLDER_FUNCTIONS);
        let code = code.replace("MAX_RECORD_BYTES", &MAX_RECORD_BYTES.to_string());
        let code = code.replace("FORMAT_TAG", MAGIC);
        let code = code.replace("FORMAT_PATTERN", &MAGIC.replace('-', "%-"));
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

    /// Runs a script that only reads, also on a server that accepts no writes: such a server
    /// refuses a script whose flags allow writes.
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
    /// On `NOSCRIPT` nothing was run, and `EVAL` sends the script. Loading it first would
    /// take another round trip, in a cluster one to every node.
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

    /// Boxed, since it is rare: other calls do not have its size.
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

/// An argument, written without formatting.
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

/// The arguments of a script, written one after the other.
#[derive(Default)]
pub(crate) struct ScriptArgs {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl ScriptArgs {
    /// Room for the terms of a holder, a few words, and `content` bytes of a record.
    pub(crate) fn with_room(content: usize) -> Self {
        Self {
            text: Vec::with_capacity(160 + content.min(MAX_RECORD_BYTES)),
            ends: Vec::with_capacity(8),
        }
    }

    /// Adds a word or a number.
    pub(crate) fn word(mut self, word: impl ScriptArg) -> Self {
        word.push(&mut self.text);
        self.end()
    }

    /// Adds the content of a record after its first line.
    pub(crate) fn content(mut self, name: &RecordName, content: &Content) -> Self {
        content.write(name, &mut self.text);
        self.end()
    }

    /// The same within `limit` bytes, without a body that does not fit.
    pub(crate) fn parted(
        mut self,
        name: &RecordName,
        content: &Content,
        limit: usize,
    ) -> (Self, Option<Bytes>) {
        let body = content.write_separate(name, &mut self.text, limit).cloned();
        (self.end(), body)
    }

    /// The sum of their lengths.
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

/// What the scripts of a holder's events share.
const HOLDER_FUNCTIONS: &str = concat!(
    include_str!("header.lua"),
    include_str!("common.lua"),
    include_str!("claim.lua")
);

/// A script from its parts, which are beside this file.
macro_rules! script {
    ($name:ident, $($part:literal),+) => {
        pub(crate) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!($(include_str!($part)),+)));
    };
}

script!(TAKE_OVER, "take_over.lua");
script!(EXTEND, "extend.lua");
script!(ENTER, "enter.lua");
script!(COMPLETE, "complete.lua");
script!(RELEASE, "release.lua");
script!(ABANDON, "abandon.lua");
script!(RESOLVE, "header.lua", "common.lua", "resolve.lua");
script!(FORGET, "header.lua", "common.lua", "forget.lua");
script!(LOOK, "header.lua", "look.lua");
script!(MARKER, "marker.lua");
script!(PERMISSIONS, "permissions.lua");
script!(IDENTIFY, "identify.lua");
script!(DISCARD, "header.lua", "discard.lua");
