//! A TCP proxy on loopback that can stop forwarding or close what goes through it, as a network does.
//!
//! A stalled one keeps every connection open and says nothing of what happened on its other side: not even that it ended.
//! Ends its threads when dropped.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// A proxy before one address. Forwards from the start.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    flow: Flow,
    /// Both ends of each connection, by a number of its own.
    open: BTreeMap<u64, [TcpStream; 2]>,
    next: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Flow {
    #[default]
    Forward,
    Stall,
    /// Every connection is closed, and new ones are at once.
    Cut,
    /// For good.
    End,
}

impl Proxy {
    /// Listens on a free port of loopback, and forwards to `upstream`'s port there.
    pub fn before(upstream: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            upstream: (Ipv4Addr::LOCALHOST, upstream).into(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let accepting = shared.clone();
        let acceptor = std::thread::spawn(move || accept(&listener, &accepting));
        Self {
            address,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Where to connect instead of to the address behind it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same for a NATS client.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// How many connections go through it.
    pub fn connections(&self) -> usize {
        self.shared.lock().open.len()
    }

    /// Forwards nothing either way; connections stay open, and new ones open without an answer.
    pub fn stall(&self) {
        self.shared.set(Flow::Stall);
    }

    /// Closes every connection, and every new one until [`Proxy::resume`].
    pub fn cut(&self) {
        self.shared.set(Flow::Cut);
    }

    /// Forwards again, beginning with what a stall held back.
    pub fn resume(&self) {
        self.shared.set(Flow::Forward);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.set(Flow::End);
        // Its accept returns for this one, and finds the end.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, flow: Flow) {
        let mut state = self.lock();
        state.flow = flow;
        if matches!(flow, Flow::Cut | Flow::End) {
            for end in std::mem::take(&mut state.open).into_values().flatten() {
                let _ = end.shutdown(Shutdown::Both);
            }
        }
        self.changed.notify_all();
    }

    /// Waits until a stall is over; says whether there is anything to forward to.
    fn flows(&self) -> bool {
        let state = self
            .changed
            .wait_while(self.lock(), |state| state.flow == Flow::Stall);
        state.unwrap_or_else(PoisonError::into_inner).flow == Flow::Forward
    }

    /// Counts a connection in, unless it came too late.
    fn enter(&self, ends: [TcpStream; 2]) -> Option<u64> {
        let mut state = self.lock();
        if matches!(state.flow, Flow::Cut | Flow::End) {
            return None;
        }
        state.next += 1;
        let number = state.next;
        state.open.insert(number, ends);
        Some(number)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut connections = Vec::new();
    for client in listener.incoming() {
        if shared.lock().flow == Flow::End {
            break;
        }
        if let Ok(client) = client {
            let shared = shared.clone();
            connections.push(std::thread::spawn(move || connect(&shared, client)));
        }
    }
    for connection in connections {
        let _ = connection.join();
    }
}

/// One connection, from its first byte to its end.
fn connect(shared: &Shared, client: TcpStream) {
    if !shared.flows() {
        return;
    }
    let Ok(server) = TcpStream::connect(shared.upstream) else {
        return;
    };
    for end in [&client, &server] {
        let _ = end.set_nodelay(true);
    }
    let (Ok(from_client), Ok(from_server)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    let Some(number) = shared.enter([from_client, from_server]) else {
        return;
    };
    std::thread::scope(|scope| {
        scope.spawn(|| forward(shared, &client, &server));
        scope.spawn(|| forward(shared, &server, &client));
    });
    shared.lock().open.remove(&number);
}

/// What was read waits out a stall, and so does the news that there will be no more.
fn forward(shared: &Shared, mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        if !shared.flows() || read == 0 || to.write_all(&buffer[..read]).is_err() {
            let _ = to.shutdown(Shutdown::Write);
            let _ = from.shutdown(Shutdown::Read);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use std::sync::mpsc;
    use std::time::Duration;

    use crate::wait::{DEADLINE, eventually_blocking};

    /// Says back what it hears, and tells of every connection that ended.
    struct Echo {
        port: u16,
        ended: mpsc::Receiver<()>,
    }

    fn echo() -> Echo {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, ended) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let tell = tell.clone();
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut &stream, &mut &stream);
                    let _ = tell.send(());
                });
            }
        });
        Echo { port, ended }
    }

    fn says(stream: &mut TcpStream, text: &str) -> String {
        stream.write_all(text.as_bytes()).unwrap();
        hears(stream, text.len())
    }

    fn hears(stream: &mut TcpStream, bytes: usize) -> String {
        let mut heard = vec![0; bytes];
        stream.read_exact(&mut heard).unwrap();
        String::from_utf8(heard).unwrap()
    }

    fn client(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    #[test]
    fn what_a_stall_held_back_arrives_in_order_once_it_is_over() {
        let echo = echo();
        let proxy = Proxy::before(echo.port);
        let mut stream = client(&proxy);
        assert_eq!(says(&mut stream, "one"), "one");
        proxy.stall();
        stream.write_all(b"two").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let silent = stream.read(&mut [0; 3]).unwrap_err().kind();
        assert!(
            matches!(silent, ErrorKind::WouldBlock | ErrorKind::TimedOut),
            "{silent}"
        );
        assert_eq!(proxy.connections(), 1);
        proxy.resume();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(b"three").unwrap();
        assert_eq!(hears(&mut stream, 8), "twothree");
    }

    #[test]
    fn behind_a_stall_nobody_learns_that_the_other_side_has_gone() {
        let echo = echo();
        let proxy = Proxy::before(echo.port);
        let mut stream = client(&proxy);
        assert_eq!(says(&mut stream, "one"), "one");
        proxy.stall();
        drop(stream);
        let early = echo.ended.recv_timeout(Duration::from_millis(100));
        assert_eq!(early, Err(mpsc::RecvTimeoutError::Timeout));
        proxy.resume();
        echo.ended.recv_timeout(DEADLINE).unwrap();
        let none = eventually_blocking(DEADLINE, || (proxy.connections() == 0).then_some(()));
        assert!(none.is_some());
    }

    #[test]
    fn a_connection_made_during_a_stall_is_answered_after_it() {
        let echo = echo();
        let proxy = Proxy::before(echo.port);
        proxy.stall();
        let mut stream = client(&proxy);
        stream.write_all(b"hello").unwrap();
        proxy.resume();
        assert_eq!(hears(&mut stream, 5), "hello");
    }

    #[test]
    fn a_cut_closes_old_connections_and_new_ones_until_it_is_over() {
        let echo = echo();
        let proxy = Proxy::before(echo.port);
        let mut old = client(&proxy);
        assert_eq!(says(&mut old, "one"), "one");
        proxy.cut();
        let over = |stream: &mut TcpStream| matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_));
        assert!(over(&mut old) && over(&mut client(&proxy)));
        echo.ended.recv_timeout(DEADLINE).unwrap();
        assert_eq!(proxy.connections(), 0);
        proxy.resume();
        assert_eq!(says(&mut client(&proxy), "two"), "two");
    }

    #[test]
    fn where_nobody_listens_a_connection_is_closed() {
        let port = {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            listener.local_addr().unwrap().port()
        };
        let proxy = Proxy::before(port);
        assert!(matches!(client(&proxy).read(&mut [0; 1]), Ok(0) | Err(_)));
    }
}
