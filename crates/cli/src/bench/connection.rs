//! A connection that is opened again when it breaks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::grpc::{self, Heads, Method};
use super::socket::Gathering;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Between attempts to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// What a server may send before it must wait: a burst of pages of keys.
const WINDOW_BYTES: u32 = 4 << 20;

/// Its clients share it. All of them run on one thread.
pub(super) struct Connection {
    address: String,
    heads: Heads,
    /// Or why there is none. Never borrowed across an await.
    link: RefCell<Result<Link, String>>,
    opened: Cell<u64>,
    /// The link is another one, or the attempt to open it failed.
    changed: Notify,
    /// The link is of no use any more.
    lost: Notify,
}

/// One opened socket.
#[derive(Clone)]
struct Link {
    sender: SendRequest<Bytes>,
    /// Counts the links of a connection, so that nobody gives up a later one.
    number: u64,
}

impl Connection {
    pub(super) fn new(endpoint: &str) -> Result<Rc<Connection>, String> {
        let address = endpoint.strip_prefix("http://").unwrap_or(endpoint).trim_end_matches('/');
        let heads = Heads::new(address);
        let heads = heads.map_err(|_| format!("endpoint {endpoint:?}: not a host and port"))?;
        Ok(Rc::new(Connection {
            address: address.to_owned(),
            heads,
            link: RefCell::new(Err("not connected".into())),
            opened: Cell::new(0),
            changed: Notify::new(),
            lost: Notify::new(),
        }))
    }

    /// Opens the connection for the first time, and keeps it open for as long as the tasks of
    /// this thread's `LocalSet` run.
    pub(super) async fn start(self: &Rc<Self>) -> Result<(), String> {
        tokio::task::spawn_local(self.clone().keep());
        self.link().await.map(drop)
    }

    /// One call; answers the message that came back.
    pub(super) async fn call(&self, method: Method, message: Bytes) -> Result<Bytes, String> {
        let link = self.link().await.map_err(|error| format!("connect: {error}"))?;
        let Link { mut sender, number } = link;
        // A fresh copy may send at once: what exceeds the server's limit of streams waits inside.
        let sent = sender.send_request(self.heads.of(method), false);
        let sent = sent.and_then(|(response, mut body)| {
            body.send_data(message, true)?;
            Ok(response)
        });
        match sent {
            Ok(response) => grpc::answer(response).await,
            Err(error) => {
                self.give_up(number);
                Err(grpc::broken(error))
            }
        }
    }

    /// The link; if there is none, what the next attempt to open it brings.
    async fn link(&self) -> Result<Link, String> {
        if let Ok(link) = &*self.link.borrow() {
            return Ok(link.clone());
        }
        self.changed.notified().await;
        self.link.borrow().clone()
    }

    async fn keep(self: Rc<Self>) {
        loop {
            let attempt = tokio::time::timeout(CONNECT_TIMEOUT, self.open()).await;
            let attempt = attempt.unwrap_or_else(|_| Err("connecting takes too long".into()));
            let is_open = attempt.is_ok();
            *self.link.borrow_mut() = attempt;
            self.changed.notify_waiters();
            if is_open {
                self.lost.notified().await;
            } else {
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
        }
    }

    async fn open(self: &Rc<Self>) -> Result<Link, String> {
        let socket = TcpStream::connect(&self.address).await.map_err(|error| error.to_string())?;
        socket.set_nodelay(true).map_err(|error| error.to_string())?;
        let (sender, driver) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .enable_push(false)
            .handshake(Gathering::new(socket))
            .await
            .map_err(|error| error.to_string())?;
        let number = self.opened.get() + 1;
        self.opened.set(number);
        let connection = self.clone();
        tokio::task::spawn_local(async move {
            // How it ended shows in the requests on it.
            let _ = driver.await;
            connection.give_up(number);
        });
        Ok(Link { sender, number })
    }

    /// Nothing more can be sent on this link: another is opened, while what is in flight on the
    /// old one may still be answered.
    fn give_up(&self, number: u64) {
        let is_current = self.link.borrow().as_ref().is_ok_and(|link| link.number == number);
        if is_current {
            *self.link.borrow_mut() = Err("connection lost".into());
            self.lost.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tokio::task::{LocalSet, spawn_local};

    /// Serves one link: answers so many calls with an empty message, and then breaks it.
    async fn serve(listener: &TcpListener, calls: usize) {
        let (socket, _) = listener.accept().await.unwrap();
        let mut link = h2::server::handshake(socket).await.unwrap();
        for _ in 0..calls {
            let (_, mut respond) = link.accept().await.unwrap().unwrap();
            let head = http::Response::new(());
            let mut body = respond.send_response(head, false).unwrap();
            body.send_data(Bytes::from_static(&[0; 5]), false).unwrap();
            let status = ("grpc-status".parse().unwrap(), "0".parse().unwrap());
            body.send_trailers([status].into_iter().collect()).unwrap();
        }
        // Sends the answers, and drops the link once it has a request more.
        link.accept().await.unwrap().unwrap();
    }

    #[test]
    fn a_break_fails_what_is_in_flight_and_nothing_after() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = listener.local_addr().unwrap().to_string();
            let connection = Connection::new(&endpoint).unwrap();
            let server = spawn_local(async move {
                serve(&listener, 2).await;
                serve(&listener, 1).await;
            });
            connection.start().await.unwrap();
            let call = || connection.call(Method::Put, Bytes::from_static(&[0; 5]));
            assert_eq!(call().await, Ok(Bytes::new()));
            assert_eq!(call().await, Ok(Bytes::new()));
            assert!(call().await.unwrap_err().starts_with("connection: "));
            assert_eq!(call().await, Ok(Bytes::new()));
            assert!(call().await.unwrap_err().starts_with("connection: "));
            server.await.unwrap();
        });
    }

    #[test]
    fn nobody_listening_is_told_to_all_who_wait() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            // Port 1 is nobody's.
            let connection = Connection::new("http://127.0.0.1:1").unwrap();
            assert!(connection.start().await.is_err());
            let call = || connection.call(Method::Put, Bytes::new());
            let (one, other) = tokio::join!(call(), call());
            assert!(one.unwrap_err().starts_with("connect: "));
            assert!(other.unwrap_err().starts_with("connect: "));
        });
    }
}
