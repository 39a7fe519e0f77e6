//! A plain HTTP/1.1 client: one connection for each request, so that thousands of callers are
//! thousands of connections.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Every caller of a test gets its answer within this time.
const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: HashMap<String, String>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts that the answer is this problem document, and returns it.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        let document = self.json();
        assert_eq!(document["code"], code, "{document}");
        assert_eq!(document["status"], status);
        assert_eq!(document["type"], format!("/problems/{code}"));
        let after = document["retry_after"].as_u64().map(|s| s.to_string());
        assert_eq!(self.header("retry-after"), after.unwrap_or_default());
        document
    }
}

pub async fn send(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<Answer> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let mut text = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if headers.iter().all(|(name, _)| *name != "host") {
            text.push_str(&format!("host: {address}\r\n"));
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(text.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = timeout(PATIENCE, exchange).await.expect("an answer")?;
    parse(&String::from_utf8(answer).unwrap())
}

/// All bytes of a connection until the server ends it.
pub async fn rest(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut rest = String::new();
    let read = stream.read_to_string(&mut rest);
    timeout(PATIENCE, read).await.expect("the end")?;
    Ok(rest)
}

/// Parses a whole answer.
pub fn parse(answer: &str) -> std::io::Result<Answer> {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        let text = format!("no whole answer: {answer:?}");
        return Err(std::io::Error::other(text));
    };
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap());
    Ok(Answer {
        status: status.parse().unwrap(),
        headers: headers
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect(),
        body: body.to_owned(),
    })
}
