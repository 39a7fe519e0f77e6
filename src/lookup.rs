//! Resolves host names with the system's resolver, in threads of this crate. It never uses
//! a runtime's blocking pool: that panics without a thread, and the application shares it.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::thread::{Builder, JoinHandle};

use tokio::sync::{Semaphore, oneshot};

/// Lookups at a time in this process. A lookup waits for a slot only while name servers
/// are silent, at most for the time limit of its connection.
const MAX_LOOKUPS: usize = 128;

static SLOTS: Semaphore = Semaphore::const_new(MAX_LOOKUPS);

type Work = Box<dyn FnOnce() + Send>;

/// How a thread is started; tests replace it.
type Spawn = fn(Builder, Work) -> io::Result<JoinHandle<()>>;

/// The addresses of a host.
///
/// # Errors
///
/// The resolver's error, or that of starting a thread.
///
/// # Cancel safety
///
/// Cancel safe. A dropped lookup keeps its slot until its thread ends.
pub(crate) async fn addresses(
    host: String,
    port: u16,
) -> io::Result<impl Iterator<Item = SocketAddr> + Send> {
    look_up(host, port, &SLOTS, Builder::spawn).await
}

async fn look_up(
    host: String,
    port: u16,
    slots: &'static Semaphore,
    spawn: Spawn,
) -> io::Result<std::vec::IntoIter<SocketAddr>> {
    let slot = slots.acquire().await.map_err(io::Error::other)?;
    let (reply, answer) = oneshot::channel();
    let lookup = move || {
        let _slot = slot;
        // The waiter might be gone.
        let _ = reply.send((host.as_str(), port).to_socket_addrs());
    };
    let builder = Builder::new().name("genesys-once-dns".into());
    spawn(builder, Box::new(lookup))?;
    answer.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn lookup_without_thread_fails() {
        static SLOTS: Semaphore = Semaphore::const_new(1);
        for _ in 0..2 {
            let spawn: Spawn = |_, _| Err(io::ErrorKind::WouldBlock.into());
            let found = look_up("localhost".into(), 1, &SLOTS, spawn).await;
            assert_eq!(found.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[tokio::test]
    async fn lookup_beyond_the_limit_waits() {
        static SLOTS: Semaphore = Semaphore::const_new(1);
        static HANGS: Mutex<Option<Work>> = Mutex::new(None);
        let spawn: Spawn = |builder, work| {
            let mut hangs = HANGS.lock().unwrap();
            if hangs.is_none() {
                *hangs = Some(work);
                return builder.spawn(|| ());
            }
            builder.spawn(work)
        };
        let localhost = || Box::pin(look_up("localhost".into(), 1, &SLOTS, spawn));
        // Dropped while its thread hangs.
        assert!(localhost().now_or_never().is_none());
        let mut waiting = localhost();
        assert!((&mut waiting).now_or_never().is_none());
        let hung = HANGS.lock().unwrap().replace(Box::new(|| ()));
        hung.unwrap()();
        let found: Vec<_> = waiting.await.unwrap().collect();
        assert!(found.iter().all(|found| found.ip().is_loopback()));
        assert!(!found.is_empty());
    }
}
