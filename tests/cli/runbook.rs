//! Every shell line of the guides and READMEs that names `genesys-once`, run exactly as it is
//! written, in a shell, against a Redis server and a simulated platform.

use genesys_once::DataActionRequest;
use genesys_once::request::Scope;
use genesys_once::testing::{GenesysSimulator, Step};

use super::doctor::{lasting, with_platform};
use super::process::{Cli, NAMESPACE};
use super::records::{ACTION, engine, lose, record, request, slow_engine, store};

const OPERATING: &str = include_str!("../../src/guide/operating.md");
const GETTING_STARTED: &str = include_str!("../../src/guide/getting_started.md");
const README: &str = include_str!("../../README.md");
const SERVICE: &str = include_str!("../../examples/service/README.md");

/// The request of the guides' examples, and its key.
const PAYLOAD: &str = r#"{"order": 42, "amount": 19.90}"#;
const KEY: &str = "c87d06ebf10e55a3b055bcbcbe07118f91fcbaac6855ca2063382c07566f3d01";

/// The shell scripts of a page.
fn scripts(page: &str) -> Vec<&str> {
    let blocks = page.split("```sh\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap())
        .collect()
}

/// The commands that a page names within a sentence.
fn named(page: &str) -> Vec<&str> {
    let prose: Vec<&str> = page.split("```").step_by(2).collect();
    let spans = prose
        .iter()
        .flat_map(|text| text.split('`').skip(1).step_by(2));
    spans
        .filter(|span| span.starts_with("genesys-once "))
        .collect()
}

/// `doctor` exits with 10 if this machine is too busy for its limit of latency; any other
/// code than 0 ends the script.
fn tolerant(script: &str) -> String {
    script.replace(
        "genesys-once doctor\n",
        "genesys-once doctor || test $? = 10\n",
    )
}

/// Red if a command, an option or the layout of `show` changes and the runbook does not.
#[tokio::test]
async fn each_script_of_the_runbook_succeeds() {
    let server = lasting();
    let platform = GenesysSimulator::start().await;
    let cli = with_platform(Cli::on(&server), &platform);
    let (losing, upstream) = slow_engine(store(&server).await).await;
    let request = DataActionRequest::new(ACTION, PAYLOAD).unwrap();
    let (key, _) = lose(&losing, request.clone()).await;
    assert_eq!(key.to_string(), KEY);

    let scripts = scripts(OPERATING);
    assert_eq!(scripts.len(), 3, "{scripts:#?}");
    for script in scripts {
        let ran = cli.script(&tolerant(script)).await.expect(0);
        if script.contains(" --applied 200 ") {
            assert!(
                ran.out.contains(&format!("resolved {KEY}: executed")),
                "{ran:?}"
            );
            let reply = losing.execute(request.clone()).await.unwrap();
            assert_eq!(reply.body(), r#"{"receipt": "R-1"}"#);
        }
        if script.contains(" key ") {
            assert!(ran.out.contains(KEY), "{ran:?}");
        }
        if script.contains(" accept-emptied ") {
            // A test in `writes` has a server that lost its records.
            assert_eq!(ran.out, "no shard was refused\n");
        }
    }
    assert_eq!(upstream.ledger().total(), 1);
    assert_eq!(
        platform.ledger().total(),
        0,
        "no command executes an action"
    );
}

/// Red if the key that the guide computes by hand differs from the library's key.
#[tokio::test]
async fn key_by_hand_is_the_key_of_the_program() {
    let [script] = scripts(GETTING_STARTED)[..] else {
        panic!("a script of the guide that this test does not run");
    };
    let said = Cli::bare().script(script).await.expect(0).out;
    let keys: Vec<_> = said.lines().map(|line| line.split(' ').next()).collect();
    assert_eq!(keys, [Some(KEY); 2]);
}

/// Red if a command that a page names is unknown, or if a page names a command that this
/// test does not run.
#[tokio::test]
async fn each_command_that_a_page_names_is_known() {
    let server = lasting();
    let platform = GenesysSimulator::start().await;
    let cli = with_platform(Cli::on(&server), &platform);
    let (answering, _) = engine(store(&server).await, || Step::ok("{}")).await;
    record(&answering, DataActionRequest::new(ACTION, PAYLOAD).unwrap()).await;
    let billing: Scope = "billing".parse().unwrap();
    let own = request(1).with_key("order-1").unwrap();
    answering.scoped(&billing).execute(own).await.unwrap();
    let damaged = "ab".repeat(32);
    let name = format!("genesys-once:{NAMESPACE}:{damaged}");
    server.command::<()>(&["SET", &name, "damaged"]);

    let pages = [OPERATING, GETTING_STARTED, README, SERVICE];
    let mut ran = 0;
    for command in pages.into_iter().flat_map(named) {
        let (script, codes) = match command {
            // A command without its arguments, as the subject of a sentence.
            "genesys-once resolve" => continue,
            "genesys-once doctor" => (command.to_owned(), &[0, 10][..]),
            "genesys-once list" | "genesys-once list --all-states" => {
                (command.to_owned(), &[0][..])
            }
            "genesys-once show \"$KEY\"" => (format!("KEY={KEY}; {command}"), &[0][..]),
            // Without a terminal and without `--yes`, the command writes nothing.
            "genesys-once forget KEY --unreadable" => (command.replace("KEY", &damaged), &[8][..]),
            "genesys-once show --own-key K --action A --within NAME" => {
                let command = command
                    .replace("K ", "order-1 ")
                    .replace("A ", &format!("{ACTION} "));
                (command.replace("NAME", "billing"), &[0][..])
            }
            "genesys-once key ACTION --own-key K" => {
                let command = command.replace("ACTION", ACTION);
                (command.replace("-key K", "-key order-1"), &[0][..])
            }
            other => panic!("this test does not run {other}"),
        };
        let said = cli.script(&script).await;
        assert!(codes.contains(&said.code), "{script}: {said:?}");
        ran += 1;
    }
    assert!(ran >= 8, "only {ran} commands");
}

/// The other scripts of README: `.ci/run` runs the first script, and `cargo add` would
/// contact the registry.
#[test]
fn readme_has_no_other_scripts() {
    let scripts = scripts(README);
    let commands: Vec<_> = scripts.iter().flat_map(|script| script.lines()).collect();
    assert!(commands.len() >= 3, "{commands:#?}");
    for command in commands {
        let known = ["cargo run -p quickstart ", "sh tests/run ", "cargo add "];
        assert!(
            known.iter().any(|known| command.starts_with(known)),
            "{command}"
        );
    }
}
