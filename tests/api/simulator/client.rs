//! A plain HTTP/1.1 client over one socket: it writes given bytes and reads one answer,
//! without a client library.

use std::io;
use std::time::Duration;

use base64::Engine as _;
use genesys_once::testing::GenesysSimulator;
use genesys_once::{DataActionRequest, IdempotencyKey};
use http::HeaderMap;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

pub const PAYLOAD: &str = r#"{"order": 9007199254740993}"#;

/// The path of an action's execution, under the first of the two routes.
pub fn path(action: &str) -> String {
    format!("/api/v2/integrations/dataactions/{action}/execute")
}

/// The key of `PAYLOAD` for the action `refund`.
pub fn key() -> IdempotencyKey {
    IdempotencyKey::of(&DataActionRequest::new("refund", PAYLOAD).unwrap())
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// One connection to the platform.
pub struct Client {
    stream: BufReader<TcpStream>,
    token: String,
    last_status: Option<u16>,
}

impl Client {
    pub async fn connect(platform: &GenesysSimulator) -> io::Result<Self> {
        let address = platform.base_url().strip_prefix("http://").unwrap();
        let stream = BufReader::new(TcpStream::connect(address).await?);
        Ok(Self {
            stream,
            token: String::new(),
            last_status: None,
        })
    }

    /// A connection, and a token for it.
    pub async fn with_token(platform: &GenesysSimulator) -> Self {
        let mut client = Self::connect(platform).await.unwrap();
        let answer = client.ask_token(platform).await;
        assert_eq!(answer.status, 200);
        client.token = answer.json()["access_token"].as_str().unwrap().to_owned();
        client
    }

    /// Asks for a token with HTTP Basic.
    pub async fn ask_token(&mut self, platform: &GenesysSimulator) -> Answer {
        let basic = basic(platform.client_id(), platform.client_secret());
        self.token_request(&[&basic], "grant_type=client_credentials")
            .await
    }

    pub async fn token_request(&mut self, headers: &[&str], form: &str) -> Answer {
        let mut all = vec!["content-type: application/x-www-form-urlencoded"];
        all.extend(headers);
        self.request("POST", "/oauth/token", &all, form.as_bytes())
            .await
            .unwrap()
    }

    /// Executes `refund` with `PAYLOAD`.
    pub async fn execute(&mut self) -> io::Result<Answer> {
        self.post(&path("refund"), &[], PAYLOAD).await
    }

    /// Sends an authorised POST and reads its answer.
    pub async fn post(&mut self, path: &str, more: &[&str], body: &str) -> io::Result<Answer> {
        let headers = self.authorized(more);
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        self.request("POST", path, &headers, body.as_bytes()).await
    }

    /// Sends the execution of `refund` and reads nothing.
    pub async fn send_only(&mut self) {
        let headers = self.authorized(&[]);
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        self.send("POST", &path("refund"), &headers, PAYLOAD.as_bytes())
            .await
            .unwrap();
    }

    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &[u8],
    ) -> io::Result<Answer> {
        self.send(method, path, headers, body).await?;
        self.receive().await
    }

    async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &[u8],
    ) -> io::Result<()> {
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: platform\r\n");
        text += &format!("content-length: {}\r\n", body.len());
        headers
            .iter()
            .for_each(|header| text += &format!("{header}\r\n"));
        text += "\r\n";
        self.stream
            .write_all(&[text.as_bytes(), body].concat())
            .await?;
        self.stream.flush().await
    }

    /// Reads one answer; a connection that ends within the body is `UnexpectedEof`.
    pub async fn receive(&mut self) -> io::Result<Answer> {
        self.last_status = None;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        self.last_status = Some(status);
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            let name: http::HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        let length = headers
            .get("content-length")
            .map_or("0", |value| value.to_str().unwrap());
        let mut body = vec![0; length.parse().unwrap()];
        self.stream.read_exact(&mut body).await?;
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    /// The status of the last answer, if only its head arrived.
    pub fn last_head(&self) -> Option<u16> {
        self.last_status
    }

    /// Whether nothing has been received and the connection is open.
    pub fn is_quiet(&self) -> bool {
        let mut byte = [0];
        let read = self.stream.get_ref().try_read(&mut byte);
        self.stream.buffer().is_empty()
            && matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Waits until the platform closes or resets the connection. The time limit turns a
    /// mistake into an error instead of a hang.
    pub async fn closed(&mut self) {
        let mut rest = Vec::new();
        let reading = self.stream.read_to_end(&mut rest);
        let closed = tokio::time::timeout(Duration::from_secs(60), reading).await;
        assert!(closed.is_ok(), "the connection is still open");
        assert!(rest.is_empty());
    }

    fn authorized(&self, more: &[&str]) -> Vec<String> {
        let token = format!("authorization: Bearer {}", self.token);
        let more = more.iter().map(|header| (*header).to_owned());
        [token, "content-type: application/json".to_owned()]
            .into_iter()
            .chain(more)
            .collect()
    }
}

/// The header of HTTP Basic.
pub fn basic(id: &str, secret: &str) -> String {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}"));
    format!("authorization: Basic {pair}")
}
