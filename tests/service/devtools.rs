//! A headless Chromium, driven over its DevTools port: real pages, real clicks, real key
//! presses. It must be installed: `tests/run` installs it, and `CHROMIUM` names another
//! binary.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::eventually;

/// Every step ends within this time.
const PATIENCE: Duration = Duration::from_secs(120);

/// A browser with one page. When it is dropped, it is killed and its profile removed;
/// [`close`](Self::close) waits for its end.
pub struct Browser {
    process: Child,
    profile: PathBuf,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: String,
    commands: u64,
}

impl Browser {
    pub async fn start() -> Self {
        let name = format!("genesys-once-browser-{}", std::process::id());
        let profile = std::env::temp_dir().join(name);
        let program = std::env::var_os("CHROMIUM").unwrap_or_else(|| "chromium".into());
        let mut process = Command::new(&program)
            // Can run as root in a container, and makes no requests of its own.
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
            ])
            .args([
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-sync",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
            ])
            .args(["--hide-scrollbars", "--window-size=1000,860"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("--remote-debugging-port=0")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|e| panic!("{program:?}: {e}; install chromium, or set CHROMIUM"));
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let listening = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some(address) = line.strip_prefix("DevTools listening on ") {
                    return address.to_owned();
                }
            }
            panic!("the browser ended before it listened");
        };
        let address = timeout(PATIENCE, listening).await.expect("its address");
        // The browser must not block on a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let (socket, _) = connect_async(&address).await.unwrap();
        let mut browser = Self {
            process,
            profile,
            socket,
            session: String::new(),
            commands: 0,
        };
        let page = json!({ "url": "about:blank" });
        let page = browser.command("Target.createTarget", page).await;
        let target = json!({ "targetId": page["targetId"], "flatten": true });
        let attached = browser.command("Target.attachToTarget", target).await;
        attached["sessionId"]
            .as_str()
            .unwrap()
            .clone_into(&mut browser.session);
        browser
    }

    pub async fn open(&mut self, url: &str) {
        let opened = self.command("Page.navigate", json!({ "url": url })).await;
        assert!(opened.get("errorText").is_none(), "{opened}");
        self.until("true").await;
    }

    /// The value of an expression in the page.
    pub async fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true });
        let mut answer = self.command("Runtime.evaluate", asked).await;
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true in the current page, and the page is loaded.
    pub async fn until(&mut self, expression: &str) {
        let whole = format!("document.readyState == 'complete' && ({expression})");
        let asked = json!({ "expression": whole, "returnByValue": true });
        eventually(expression, async || {
            // A page that is being left gives no answer.
            let answer = self.try_command("Runtime.evaluate", asked.clone()).await;
            answer.is_ok_and(|answer| answer["result"]["value"] == true)
        })
        .await;
    }

    pub async fn text(&mut self) -> String {
        let text = self.evaluate("document.body.innerText").await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Clicks with the mouse where an element is.
    pub async fn click(&mut self, selector: &str) {
        let place = format!(
            "(() => {{ const found = document.querySelector({selector:?}); \
             found.scrollIntoView({{ block: 'center', behavior: 'instant' }}); \
             const at = found.getBoundingClientRect(); \
             return [at.x + at.width / 2, at.y + at.height / 2]; }})()"
        );
        let place = self.evaluate(&place).await;
        assert!(place[0].is_number(), "no {selector} to click");
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({
                "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1,
            });
            self.command("Input.dispatchMouseEvent", event).await;
        }
    }

    /// Clicks into a field and types.
    pub async fn write(&mut self, selector: &str, text: &str) {
        self.click(selector).await;
        let text = json!({ "text": text });
        self.command("Input.insertText", text).await;
    }

    /// A screenshot of the whole page, as PNG.
    pub async fn picture(&mut self) -> Vec<u8> {
        use base64::Engine as _;
        let size = "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]";
        let size = self.evaluate(size).await;
        let clip = json!({ "x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1 });
        let format = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let picture = self.command("Page.captureScreenshot", format).await;
        let data = picture["data"].as_str().unwrap();
        base64::engine::general_purpose::STANDARD
            .decode(data)
            .unwrap()
    }

    /// Ends the browser, and waits until it has ended.
    pub async fn close(mut self) {
        self.session.clear();
        self.command("Browser.close", json!({})).await;
        let ended = timeout(PATIENCE, self.process.wait()).await;
        ended.expect("its end").unwrap();
    }

    async fn command(&mut self, method: &str, parameters: Value) -> Value {
        let answer = self.try_command(method, parameters).await;
        answer.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// The result, or the error that the browser returns.
    async fn try_command(&mut self, method: &str, parameters: Value) -> Result<Value, Value> {
        self.commands += 1;
        let id = self.commands;
        let mut command = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        let answered = async {
            let command = Message::text(command.to_string());
            self.socket.send(command).await.unwrap();
            loop {
                let message = self.socket.next().await.expect("the browser is there");
                let Message::Text(text) = message.unwrap() else {
                    continue;
                };
                let mut message: Value = serde_json::from_str(&text).unwrap();
                if message["id"] == id {
                    return match message.get_mut("error") {
                        Some(error) => Err(error.take()),
                        None => Ok(message["result"].take()),
                    };
                }
            }
        };
        let answered = timeout(PATIENCE, answered).await;
        answered.unwrap_or_else(|_| panic!("no answer to {method}"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.start_kill();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}
