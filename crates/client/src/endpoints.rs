//! Which endpoint is asked, and when the next one is.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use crate::client::Options;
use crate::error::{Error, never_sent};

/// Pause after every endpoint was tried once.
const ROUND_PAUSE: Duration = Duration::from_millis(25);

/// Whether doing a request twice is the same as doing it once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    Safe,
    Unsafe,
}

/// The endpoints of one cluster. The one that answered last is asked first.
pub(crate) struct Endpoints {
    list: Vec<(String, Channel)>,
    current: AtomicUsize,
    options: Options,
}

impl Endpoints {
    /// Connects to nothing yet.
    pub(crate) fn new(names: Vec<String>, options: Options) -> Result<Endpoints, Error> {
        let nothing = || Error::Endpoint { endpoint: String::new(), reason: "none given".into() };
        if names.is_empty() {
            return Err(nothing());
        }
        let list = names
            .into_iter()
            .map(|name| channel(&name, &options).map(|channel| (name, channel)))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Endpoints { list, current: AtomicUsize::new(0), options })
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|(name, _)| name.as_str())
    }

    pub(crate) async fn call<Q, A, F>(
        &self,
        repeat: Repeat,
        request: Q,
        rpc: impl Fn(Channel, Request<Q>) -> F,
    ) -> Result<A, Error>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let start = Instant::now();
        let deadline = start + self.options.request_timeout;
        let connect_by = (start + self.options.connect_timeout).min(deadline);
        let safe = repeat == Repeat::Safe;
        for attempt in 1.. {
            let current = self.current.load(Ordering::Relaxed) % self.list.len();
            let channel = self.list[current].1.clone();
            let mut sent = Request::new(request.clone());
            sent.set_timeout(deadline.saturating_duration_since(Instant::now()));
            let Ok(answer) = timeout_at(deadline, rpc(channel, sent)).await else {
                // A silent endpoint is left for the next request's sake.
                self.leave(current);
                return Err(Error::deadline(safe));
            };
            let status = match answer {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => status,
            };
            let error = Error::of_status(&status, safe);
            let unsent = never_sent(&status);
            if unsent || status.code() == Code::Unavailable {
                self.leave(current);
            }
            let again = unsent || (safe && status.code() == Code::Unavailable);
            let until = if unsent { connect_by } else { deadline };
            // Every endpoint is tried at least once, however slowly they refuse.
            let all_tried = attempt >= self.list.len();
            if !again || (all_tried && Instant::now() + ROUND_PAUSE >= until) {
                return Err(error);
            }
            if attempt % self.list.len() == 0 {
                sleep(ROUND_PAUSE).await;
            }
        }
        unreachable!("the attempts are not counted to an end")
    }

    fn leave(&self, current: usize) {
        let next = (current + 1) % self.list.len();
        // Lost to another request that left it first: it went to the same next one.
        let _ = self.current.compare_exchange(current, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

fn channel(name: &str, options: &Options) -> Result<Channel, Error> {
    let wrong = |reason: String| Error::Endpoint { endpoint: name.to_owned(), reason };
    let url = match name.split_once("://") {
        None => format!("http://{name}"),
        Some(("http", _)) => name.to_owned(),
        Some((scheme, _)) => {
            return Err(wrong(format!("scheme {scheme:?} is not supported, only http")));
        }
    };
    let endpoint = Endpoint::from_shared(url).map_err(|_| wrong("not a host and port".into()))?;
    if endpoint.uri().port().is_none() {
        return Err(wrong("the port is missing".into()));
    }
    let endpoint = endpoint.tcp_nodelay(true).connect_timeout(options.connect_timeout);
    Ok(endpoint.connect_lazy())
}
