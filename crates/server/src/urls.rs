//! URLs of members: where to listen, and where others reach it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// `http://host:port`, and nothing after it.
///
/// Displayed as it was written, blanks around it and the letter case of the scheme apart: ids are
/// derived from this text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    text: String,
    host: String,
    port: u16,
}

/// Why a text is not a URL that can be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlError {
    /// No `://`.
    NoScheme(String),
    /// `https` or `unixs`.
    Tls(String),
    /// `unix`.
    Unix(String),
    /// Something else before `://`.
    Scheme(String),
    /// There is something after the port.
    Path(String),
    /// No host, no port, or not a number from 0 to 65535.
    HostPort(String),
    /// A listener's host is neither an address nor `localhost`.
    NotLocal(String),
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UrlError::NoScheme(text) => write!(f, "URL {text:?} lacks a scheme: http://{text}?"),
            UrlError::Tls(text) => write!(f, "URL {text:?}: TLS is not served yet, use http://"),
            UrlError::Unix(text) => {
                write!(f, "URL {text:?}: unix sockets are not served yet, use http://")
            }
            UrlError::Scheme(text) => write!(f, "URL {text:?}: the scheme must be http"),
            UrlError::Path(text) => {
                write!(f, "URL {text:?} must end after its port: http://host:port")
            }
            UrlError::HostPort(text) => write!(f, "URL {text:?} must be http://host:port"),
            UrlError::NotLocal(text) => {
                write!(f, "URL {text:?}: to listen, the host must be an IP address or localhost")
            }
        }
    }
}

impl std::error::Error for UrlError {}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Url {
    /// Reads one URL; blanks around it do not count.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Url, UrlError> {
        let text = text.trim();
        let whole = || text.to_owned();
        let (scheme, rest) = text.split_once("://").ok_or_else(|| UrlError::NoScheme(whole()))?;
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            "https" | "unixs" => return Err(UrlError::Tls(whole())),
            "unix" => return Err(UrlError::Unix(whole())),
            _ => return Err(UrlError::Scheme(whole())),
        }
        if rest.contains(['/', '?', '#', '@']) {
            return Err(UrlError::Path(whole()));
        }
        let bad = || UrlError::HostPort(whole());
        let (host, port) = rest.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().map_err(|_| bad())?;
        let host = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
            Some(Some(inner)) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
            Some(_) => return Err(bad()),
            None => host,
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(bad());
        }
        if host.contains(':') && !rest.starts_with('[') {
            return Err(bad());
        }
        Ok(Url { text: format!("http://{rest}"), host: host.to_owned(), port })
    }

    /// Reads a comma-separated list; an empty text is an empty list.
    ///
    /// # Errors
    /// What is wrong with the first bad one.
    pub fn parse_list(text: &str) -> Result<Vec<Url>, UrlError> {
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        text.split(',').map(Url::parse).collect()
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`.
    pub fn authority(&self) -> &str {
        self.text.strip_prefix("http://").expect("made so by parse")
    }

    /// Where a listener binds. `localhost` is the IPv4 loopback address.
    ///
    /// # Errors
    /// [`UrlError::NotLocal`] for any other name: what a name stands for can change.
    pub fn listen_address(&self) -> Result<SocketAddr, UrlError> {
        let address = match self.host.as_str() {
            "localhost" => IpAddr::from([127, 0, 0, 1]),
            host => host.parse().map_err(|_| UrlError::NotLocal(self.text.clone()))?,
        };
        Ok(SocketAddr::new(address, self.port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_ones() {
        let url = Url::parse(" HTTP://10.0.0.1:2380 ").unwrap();
        assert_eq!(url.to_string(), "http://10.0.0.1:2380");
        assert_eq!((url.host(), url.port()), ("10.0.0.1", 2380));
        let url = Url::parse("http://[::1]:80").unwrap();
        assert_eq!(url.host(), "::1");
        assert_eq!(url.authority(), "[::1]:80");
        assert_eq!(url.listen_address().unwrap().to_string(), "[::1]:80");
        let local = Url::parse("http://localhost:2379").unwrap();
        assert_eq!(local.listen_address().unwrap().to_string(), "127.0.0.1:2379");
        assert_eq!(Url::parse_list("").unwrap(), []);
        assert_eq!(Url::parse_list("http://a:1, http://b:2").unwrap().len(), 2);
    }

    #[test]
    fn bad_ones_say_what_is_wrong() {
        let say = |text: &str| Url::parse(text).unwrap_err().to_string();
        assert_eq!(
            say("127.0.0.1:80"),
            "URL \"127.0.0.1:80\" lacks a scheme: http://127.0.0.1:80?"
        );
        assert!(say("https://a:1").contains("TLS is not served yet"));
        assert!(say("unix://a").contains("unix sockets are not served yet"));
        assert!(say("ftp://a:1").contains("the scheme must be http"));
        assert!(say("http://a:1/").contains("must end after its port"));
        for text in ["http://a", "http://:1", "http://a:", "http://a:x", "http://a:70000"] {
            assert!(say(text).contains("must be http://host:port"), "{text}");
        }
        assert!(say("http://::1:80").contains("must be http://host:port"));
        assert!(Url::parse("http://db.example:1").unwrap().listen_address().is_err());
    }
}
