//! The command line itself: commands, options, their help and their examples. It
//! reads no environment and decides nothing.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use genesys_once::IdempotencyKey;
use genesys_once::record::{Namespace, Version};
use genesys_once::request::{ActionId, Scope};

const AFTER: &str = "\
Environment (a secret is never given on the command line; NAME_FILE names a file that holds the value of NAME):
  REDIS_URL[_FILE]              one Redis server, redis://user:password@host:6379/0 or rediss://
  REDIS_CLUSTER_URLS[_FILE]     nodes of a cluster, separated by spaces
  REDIS_SENTINEL_URLS[_FILE]    sentinels, separated by spaces, with REDIS_PRIMARY[_FILE]
  SERVICE_FILE                  the file of a FileStore, while no service has it open
  SERVICE_NAMESPACE             whose records; by default a digest of platform and client:
  GENESYS_CLOUD_DOMAIN          the platform, such as mypurecloud.ie; or GENESYS_CLOUD_URL
  GENESYS_CLOUD_CLIENT_ID       its OAuth client
  GENESYS_CLOUD_CLIENT_SECRET[_FILE]   the client's secret, which only `doctor` needs
  ENCRYPTION_KEYS[_FILE]        one a line: ID and 64 hex digits; the first one encrypts

Exit codes:
  0   done; doctor: every check is OK
  1   failed for another reason
  2   the command line or the environment is wrong
  3   the store has no such record
  4   refused: the key is not in the state or the version that was named, has no
      recorded body, or engines of another release write there
  5   too early: the lost attempt might still be running
  6   the store is not available
  7   the record cannot be read
  8   not confirmed: nothing was written
  9   the write might have been applied: look again
  10  doctor: a check is WARN, none is FAIL
  11  doctor: a check is FAIL";

/// Looks after the keys of genesys-once: lists and shows their records, resolves what is
/// indeterminate, and examines store and platform. It never executes a Data Action.
#[derive(Parser)]
#[command(name = "genesys-once", version, after_help = AFTER, max_term_width = 120)]
pub struct Cli {
    #[command(flatten)]
    pub place: Place,
    #[command(subcommand)]
    pub command: Command,
}

/// Which store, and whose records in it.
#[derive(Args)]
#[command(next_help_heading = "Store")]
pub struct Place {
    /// Whose records; before SERVICE_NAMESPACE
    #[arg(long, global = true, value_name = "NAME")]
    pub namespace: Option<Namespace>,
    /// One Redis server, without a password; before the environment
    #[arg(long, global = true, value_name = "URL", conflicts_with = "file")]
    pub redis_url: Option<String>,
    /// The file of a FileStore; before the environment
    #[arg(long, global = true, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// With ENCRYPTION_KEYS: also reads outcomes that were written without encryption
    #[arg(long, global = true)]
    pub also_reads_plain: bool,
    /// Writes the library's own log to standard error
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

#[derive(Subcommand)]
pub enum Command {
    Key(KeyArgs),
    List(ListArgs),
    Show(ShowArgs),
    Resolve(ResolveArgs),
    Forget(ForgetArgs),
    AcceptEmptied(AcceptEmptiedArgs),
    Doctor(DoctorArgs),
    Watch(WatchArgs),
    /// Prints a completion script for a shell
    #[command(after_help = "Examples:
  genesys-once completions bash > /etc/bash_completion.d/genesys-once")]
    Completions {
        shell: Shell,
    },
}

/// Prints the idempotency key of a request; needs no store
#[derive(Args)]
#[command(after_help = "Examples:
  genesys-once key custom_-_refund '{\"order\": 42}'
  genesys-once key custom_-_refund @payload.json --ignoring /timestamp
  genesys-once key custom_-_refund - < payload.json
  genesys-once key custom_-_refund --own-key order-42 --scope eu")]
pub struct KeyArgs {
    /// The id of the Data Action
    pub action: ActionId,
    /// The payload: JSON, `-` for standard input, or `@FILE`
    #[arg(required_unless_present = "own_key", conflicts_with = "own_key")]
    pub payload: Option<String>,
    /// The caller's own key, instead of the payload
    #[arg(long, value_name = "K")]
    pub own_key: Option<String>,
    /// The request's scope
    #[arg(long, value_name = "S")]
    pub scope: Option<String>,
    /// The scope of a scoped engine: in a service, the name of the caller
    #[arg(long, value_name = "NAME")]
    pub within: Option<Scope>,
    /// A JSON Pointer that the service leaves out of keys; may be repeated
    #[arg(long, value_name = "POINTER", conflicts_with = "own_key")]
    pub ignoring: Vec<String>,
}

/// Lists the indeterminate keys, the oldest first: those that need a person
#[derive(Args)]
#[command(after_help = "Examples:
  genesys-once list
  genesys-once list --action custom_-_refund
  genesys-once list --json | jq -r .key
  genesys-once list --all-states --limit 100000

A record that cannot be read is listed as well. `--json` prints one object a line, without any body.")]
pub struct ListArgs {
    /// All records, whatever their state
    #[arg(long)]
    pub all_states: bool,
    /// Only those of this action
    #[arg(long, value_name = "A")]
    pub action: Option<ActionId>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    /// At most so many records
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: usize,
}

/// Shows what is known of one key, and what to do next
#[derive(Args)]
#[command(after_help = "Examples:
  genesys-once show 5d41402abc4b2a76b9719d911017c592…
  genesys-once show genesys-once:go-4111d3075db8c935ab109c697d614504:5d41402a…   as it stands in a log
  genesys-once show --own-key order-42 --action custom_-_refund")]
pub struct ShowArgs {
    #[command(flatten)]
    pub which: Which,
    /// As JSON, without the body
    #[arg(long, conflicts_with = "body")]
    pub json: bool,
    /// Prints the recorded body and nothing else: it might contain customer data
    #[arg(long)]
    pub body: bool,
}

/// One key: itself, or what it is made of.
#[derive(Args)]
pub struct Which {
    /// 64 hex digits, or the record's name as it stands in a log
    #[arg(required_unless_present = "own_key", conflicts_with = "own_key")]
    pub key: Option<KeyName>,
    /// The caller's own key
    #[arg(long, value_name = "K", requires = "action")]
    pub own_key: Option<String>,
    /// The action that the own key is for
    #[arg(long, value_name = "A", requires = "own_key")]
    pub action: Option<ActionId>,
    /// The scope that the own key is in
    #[arg(long, value_name = "S", requires = "own_key")]
    pub scope: Option<String>,
    /// The scope of a scoped engine: in a service, the name of the caller
    #[arg(long, value_name = "NAME", requires = "own_key")]
    pub within: Option<Scope>,
}

/// Resolves an indeterminate key by what you found out
#[derive(Args)]
#[command(
    group = clap::ArgGroup::new("found").required(true).args(["applied", "not_applied"]),
    after_help = "Examples:
  genesys-once resolve KEY --version V --by 'ticket 4711' --applied 200 '{\"refund\": \"R-1\"}'
  genesys-once resolve KEY --version V --by 'ticket 4711' --applied 200 @answer.json --yes
  genesys-once resolve KEY --version V --by 'ticket 4711' --not-applied

`genesys-once show KEY` prints key and version. After --applied every later request gets that answer and
nothing is sent. After --not-applied the next request IS SENT to the platform: be sure that the lost one
was not executed. Without --yes it asks on a terminal, and refuses where there is none."
)]
pub struct ResolveArgs {
    /// 64 hex digits, or the record's name as it stands in a log
    pub key: KeyName,
    /// The version that you saw: any other is left alone
    #[arg(long, value_name = "V")]
    pub version: Version,
    /// It was executed: the answer to replay; BODY may be `-` or `@FILE`
    #[arg(long, num_args = 2, value_names = ["STATUS", "BODY"])]
    pub applied: Option<Vec<String>>,
    /// It was not executed: the next request executes it
    #[arg(long)]
    pub not_applied: bool,
    /// The source of the finding: a person, a ticket
    #[arg(long, value_name = "NAME")]
    pub by: String,
    /// The Content-Type of the answer to replay
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    pub content_type: String,
    /// Records status only, not the body: for requests that are marked sensitive
    #[arg(long, requires = "applied")]
    pub sensitive: bool,
    /// How long the answer is replayed: the `result_ttl` of your service
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "24h")]
    pub ttl: Duration,
    /// You know that the lost attempt has ended, whatever the clocks say
    #[arg(long, requires = "not_applied")]
    pub despite_clocks: bool,
    /// Writes without asking
    #[arg(long)]
    pub yes: bool,
}

/// Forgets the recorded outcome of a key: the next request executes it again
#[derive(Args)]
#[command(after_help = "Examples:
  genesys-once forget KEY
  genesys-once forget KEY --yes
  genesys-once forget KEY --unreadable

Only a recorded outcome is forgotten. Processes might answer from memory for another minute.
Without --yes it asks on a terminal, and refuses where there is none.")]
pub struct ForgetArgs {
    /// 64 hex digits, or the record's name as it stands in a log
    pub key: KeyName,
    /// Removes a record that cannot be read, whatever it stood for
    #[arg(long)]
    pub unreadable: bool,
    /// Writes without asking
    #[arg(long)]
    pub yes: bool,
}

/// Accepts that a Redis has lost the records of a namespace: engines that refuse it go on
#[derive(Args)]
#[command(after_help = "Examples:
  genesys-once accept-emptied
  genesys-once accept-emptied --namespace prod --yes

For services with WhenEmptied::Refuse. Find out first what was lost: what was executed before the loss
IS EXECUTED AGAIN when it is requested again. Without --yes it asks on a terminal, and refuses where
there is none.")]
pub struct AcceptEmptiedArgs {
    /// Writes without asking
    #[arg(long)]
    pub yes: bool,
}

/// Examines store, namespace, token and platform, and says what to do
#[derive(Args)]
#[command(after_help = "Examples:
  genesys-once doctor
  genesys-once doctor --store-only

Each line is OK, WARN or FAIL. The exit code is that of the worst: 0, 10 or 11.
It asks for an access token and the platform's API host for an answer; no action is executed.")]
pub struct DoctorArgs {
    /// Leaves token and platform out
    #[arg(long)]
    pub store_only: bool,
    /// A median latency beyond this is a WARN
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "50ms")]
    pub slow: Duration,
    /// Records of the namespace that are looked at
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub sample: usize,
}

/// Shows the indeterminate keys again and again
#[derive(Args)]
#[command(after_help = "Examples:
  genesys-once watch
  genesys-once watch --every 1m >> indeterminate.log

On a terminal it is a table that is redrawn; elsewhere it is a line for each round, one with `+` for each
key that is new and one with `-` for each that is gone. Each round walks the whole store.")]
pub struct WatchArgs {
    /// Time between two rounds
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10s")]
    pub every: Duration,
    /// Ends after so many rounds
    #[arg(long, value_name = "N")]
    pub rounds: Option<u32>,
    /// Only those of this action
    #[arg(long, value_name = "A")]
    pub action: Option<ActionId>,
}

/// A key as it is typed: its digits, or the name of its record.
#[derive(Clone)]
pub struct KeyName {
    pub namespace: Option<Namespace>,
    pub key: IdempotencyKey,
}

impl FromStr for KeyName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, digits) = match text.strip_prefix("genesys-once:") {
            None => (None, text),
            Some(name) => {
                let (namespace, digits) = name
                    .rsplit_once(':')
                    .ok_or("a record's name is genesys-once:NAMESPACE:KEY")?;
                let namespace = namespace.parse().map_err(|e| format!("{e}"))?;
                (Some(namespace), digits)
            }
        };
        let key = digits
            .parse()
            .map_err(|_| "a key has 64 hex digits".to_owned())?;
        Ok(Self { namespace, key })
    }
}
