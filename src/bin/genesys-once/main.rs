//! `genesys-once`, the command line of an operator: it computes keys, lists and shows
//! records, resolves and forgets them, and examines store and platform. It never
//! executes a Data Action.

mod args;
mod doctor;
mod emptied;
mod exit;
mod list;
mod record;
mod settings;
mod show;
mod terminal;
mod text;
mod walk;
mod watch;
mod write;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use tokio::runtime::Builder;
use tracing::Level;

use self::args::{Cli, Command};
use self::exit::{Exit, Failure};

fn main() -> ExitCode {
    // Exits with 2 for a wrong command line, with 0 for `--help` and `--version`.
    let cli = Cli::parse();
    let level = match cli.place.verbose {
        true => Level::INFO,
        false => Level::ERROR,
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(level)
        .with_ansi(false)
        .init();
    let done = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(error) => Err(Failure::new(Exit::Failed, format!("no runtime: {error}"))),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(failure) if failure.exit() == Exit::Done => Exit::Done.into(),
        Err(failure) => {
            terminal::report(&format!("genesys-once: {failure}\n"));
            failure.exit().into()
        }
    }
}

async fn run(cli: Cli) -> Result<Exit, Failure> {
    let Cli { place, command } = cli;
    match command {
        Command::Key(args) => show::key(&args),
        Command::List(args) => list::list(&place, &args).await,
        Command::Show(args) => show::show(&place, &args).await,
        Command::Resolve(args) => write::resolve(&place, &args).await,
        Command::Forget(args) => write::forget(&place, &args).await,
        Command::AcceptEmptied(args) => emptied::accept(&place, &args).await,
        Command::Doctor(args) => doctor::doctor(&place, &args).await,
        Command::Watch(args) => watch::watch(&place, &args).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "genesys-once", &mut script);
            terminal::print_bytes(&script)?;
            Ok(Exit::Done)
        }
    }
}
