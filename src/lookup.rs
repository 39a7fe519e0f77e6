//! Host names, resolved by the system's own resolver in threads of this crate's.
//! It panics nowhere and waits for no other code: a runtime's blocking pool panics
//! where the system gives no thread, and the application may keep it busy.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::thread::{Builder, JoinHandle};

use tokio::sync::{Semaphore, oneshot};

/// Names looked up at a time in this process. Only where name servers are silent
/// does a lookup wait for a place, and then for as long as its connection may take.
const MAX_LOOKUPS: usize = 128;

static PLACES: Semaphore = Semaphore::const_new(MAX_LOOKUPS);

type Work = Box<dyn FnOnce() + Send>;

/// How a thread is started; tests have it fail.
type Spawn = fn(Builder, Work) -> io::Result<JoinHandle<()>>;

/// The addresses of a host.
///
/// # Errors
///
/// The resolver's, or that the system gives no thread.
///
/// # Cancel safety
///
/// Cancel safe. A lookup that was given up has its place until it ends.
pub(crate) async fn addresses(
    host: String,
    port: u16,
) -> io::Result<impl Iterator<Item = SocketAddr> + Send> {
    look_up(host, port, &PLACES, Builder::spawn).await
}

async fn look_up(
    host: String,
    port: u16,
    places: &'static Semaphore,
    spawn: Spawn,
) -> io::Result<std::vec::IntoIter<SocketAddr>> {
    let place = places.acquire().await.map_err(io::Error::other)?;
    let (reply, answer) = oneshot::channel();
    let lookup = move || {
        let _place = place;
        // Nobody may be waiting any more.
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
    async fn lookup_without_a_thread_is_an_error() {
        static PLACES: Semaphore = Semaphore::const_new(1);
        for _ in 0..2 {
            let spawn: Spawn = |_, _| Err(io::ErrorKind::WouldBlock.into());
            let found = look_up("localhost".into(), 1, &PLACES, spawn).await;
            assert_eq!(found.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[tokio::test]
    async fn lookups_beyond_the_bound_wait_for_a_place() {
        static PLACES: Semaphore = Semaphore::const_new(1);
        static HANGS: Mutex<Option<Work>> = Mutex::new(None);
        let spawn: Spawn = |builder, work| {
            let mut hangs = HANGS.lock().unwrap();
            if hangs.is_none() {
                *hangs = Some(work);
                return builder.spawn(|| ());
            }
            builder.spawn(work)
        };
        let localhost = || Box::pin(look_up("localhost".into(), 1, &PLACES, spawn));
        // Given up while it hangs.
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
