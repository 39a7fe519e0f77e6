//! A child process of this binary that runs rounds: it writes `ready`, then one line of
//! numbers for every line that it reads.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

pub struct Process {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Process {
    /// Starts `--child` with these arguments and waits until it is ready.
    pub fn start(args: &[&str]) -> Self {
        let this = std::env::current_exe().expect("this binary");
        let mut child = Command::new(this)
            .arg("--child")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this binary starts again");
        let to = child.stdin.take().expect("piped");
        let from = BufReader::new(child.stdout.take().expect("piped"));
        let mut process = Self { child, to, from };
        assert_eq!(process.line(), "ready");
        process
    }

    /// Starts a round.
    pub fn start_round(&mut self, number: u64) {
        writeln!(self.to, "{number}").expect("the process is alive");
    }

    /// Waits for the result of the round.
    pub fn result<const N: usize>(&mut self) -> [u64; N] {
        let line = self.line();
        let mut numbers = line.split(' ').map(|n| n.parse().expect("a number"));
        std::array::from_fn(|_| numbers.next().expect("a number"))
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.from.read_line(&mut line);
        read.expect("the process is alive");
        line.trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process is idle, or a panic has ended the row.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the child: runs a round for every line, until the input ends.
pub fn serve<const N: usize>(mut round: impl FnMut(u64) -> [u64; N]) {
    println!("ready");
    for line in std::io::stdin().lines() {
        let number = line.expect("a line").parse().expect("a number");
        let numbers = round(number).map(|n| n.to_string());
        println!("{}", numbers.join(" "));
    }
}

/// The machine's clock, which all processes share.
pub fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("a clock after 1970").as_micros() as u64
}
