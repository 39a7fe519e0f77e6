//! The slot of a key, and the readers of `CLUSTER SLOTS`, `MOVED` and `ASK`. Pure: it sends
//! nothing.

use redis::Value;

use crate::store::redis::connection::command_error::{ASK, CommandError, MOVED};

/// Slots of a cluster.
pub(crate) const SLOTS: usize = 16_384;

/// The slot of a key: CRC-16/XMODEM of all of it, since no key of ours has
/// braces (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>).
pub(crate) fn slot(key: &str) -> usize {
    let crc = key.bytes().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 {
                shifted
            } else {
                shifted ^ 0x1021
            }
        })
    });
    usize::from(crc) % SLOTS
}

/// A range of slots of one shard: its primary, and then its replicas.
pub(crate) struct SlotRange {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) servers: Vec<ClusterNode>,
}

/// A node in a map.
#[derive(Clone)]
pub(crate) struct ClusterNode {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The node's id, which it keeps when its address changes; its address where the map has
    /// no id.
    pub(crate) id: String,
}

/// Reads the reply of the host `asked` to `CLUSTER SLOTS`.
pub(crate) fn ranges(reply: Value, asked: &str) -> Option<Vec<SlotRange>> {
    let Value::Array(ranges) = reply else {
        return None;
    };
    ranges.into_iter().map(|range| read(range, asked)).collect()
}

fn read(range: Value, asked: &str) -> Option<SlotRange> {
    let Value::Array(parts) = range else {
        return None;
    };
    let [Value::Int(from), Value::Int(to), servers @ ..] = parts.as_slice() else {
        return None;
    };
    let (from, to) = (usize::try_from(*from).ok()?, usize::try_from(*to).ok()?);
    let servers = servers
        .iter()
        .map(|server| member(server, asked))
        .collect::<Option<Vec<_>>>()?;
    (from <= to && to < SLOTS && !servers.is_empty()).then_some(SlotRange { from, to, servers })
}

fn member(server: &Value, asked: &str) -> Option<ClusterNode> {
    let Value::Array(server) = server else {
        return None;
    };
    let [host, Value::Int(port), rest @ ..] = server.as_slice() else {
        return None;
    };
    let host = match host {
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        Value::Nil => "",
        _ => return None,
    };
    // A server that does not know its own host is at the host that was asked.
    let host = match host {
        "" | "?" => asked,
        host => host,
    };
    let id = match rest.first() {
        Some(Value::BulkString(id)) if !id.is_empty() => String::from_utf8(id.clone()).ok()?,
        _ => format!("{host}:{port}"),
    };
    Some(ClusterNode {
        host: host.to_owned(),
        port: u16::try_from(*port).ok()?,
        id,
    })
}

/// Reads the reply to `CLUSTER MYID`.
pub(crate) fn node_id(reply: Value) -> Option<String> {
    match reply {
        Value::BulkString(id) => String::from_utf8(id).ok(),
        Value::SimpleString(id) => Some(id),
        _ => None,
    }
}

/// The redirection of a command to the server that has its key.
pub(crate) enum Redirection {
    /// The slot has moved to that server.
    Moved(String, u16),
    /// The slot is moving to that server, and the key is already there.
    Ask(String, u16),
}

impl Redirection {
    /// The redirection among these replies, if there is one: the command was not run.
    pub(crate) fn in_replies(replies: &[Value], asked: &str) -> Option<Self> {
        replies.iter().find_map(|reply| {
            let Some(CommandError::Server { code, text }) = CommandError::from_reply(reply) else {
                return None;
            };
            if code != MOVED && code != ASK {
                return None;
            }
            // `MOVED 3999 127.0.0.1:6381`; no host means the same host.
            let (host, port) = text.split(' ').nth(2)?.rsplit_once(':')?;
            let host = match host {
                "" | "?" => asked,
                host => host,
            };
            let (host, port) = (host.to_owned(), port.parse().ok()?);
            Some(match code == MOVED {
                true => Self::Moved(host, port),
                false => Self::Ask(host, port),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(word: &str) -> Value {
        Value::BulkString(word.into())
    }

    #[test]
    fn slots_match_specification() {
        assert_eq!(slot("123456789"), 0x31C3);
        assert_eq!(slot("foo"), 12182);
        assert_eq!(slot(""), 0);
    }

    #[test]
    fn server_without_host_has_asked_host() {
        let shard = |host| {
            let server = Value::Array(vec![host, Value::Int(7000), text("id")]);
            Value::Array(vec![Value::Int(0), Value::Int(100), server])
        };
        let reply = Value::Array(vec![shard(Value::Nil), shard(text("")), shard(text("a"))]);
        let ranges = ranges(reply, "there").unwrap();
        let hosts: Vec<_> = ranges.iter().map(|range| &*range.servers[0].host).collect();
        assert_eq!(hosts, ["there", "there", "a"]);
        assert_eq!(ranges[0].servers[0].id, "id");
        assert_eq!((ranges[0].from, ranges[0].to), (0, 100));
    }

    #[test]
    fn malformed_map_is_refused() {
        let server = Value::Array(vec![text("a"), Value::Int(7000)]);
        for wrong in [
            Value::Nil,
            Value::Array(vec![Value::Nil]),
            Value::Array(vec![Value::Array(vec![Value::Int(0), Value::Int(1)])]),
            Value::Array(vec![Value::Array(vec![
                Value::Int(2),
                Value::Int(1),
                server.clone(),
            ])]),
            Value::Array(vec![Value::Array(vec![
                Value::Int(0),
                Value::Int(16_384),
                server,
            ])]),
        ] {
            assert!(ranges(wrong, "there").is_none());
        }
    }
}
