//! What every command has: endpoints, timeouts, an output format.

use std::io::Write;

use raft_kv_client::{Client, Options};

use crate::arguments::Global;
use crate::failure::Failure;
use crate::output::{Format, Style};

/// The global flags, resolved.
pub(crate) struct Session {
    pub(crate) endpoints: Vec<String>,
    pub(crate) format: Format,
    pub(crate) hex: bool,
    options: Options,
}

impl Session {
    pub(crate) fn new(global: &Global) -> Result<Session, Failure> {
        let endpoints = endpoints(&global.endpoints, |name| std::env::var(name).ok());
        let options = Options::default()
            .connect_timeout(global.dial_timeout)
            .request_timeout(global.command_timeout);
        let format = Format::named(&global.write_out)?;
        Ok(Session { endpoints, format, hex: global.hex, options })
    }

    /// How answers are printed.
    pub(crate) fn style(&self) -> Style {
        Style { format: self.format, hex: self.hex, value_only: false }
    }

    /// A client of all endpoints.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Ok(Client::with_options(self.endpoints.iter().cloned(), self.options.clone())?)
    }

    /// A client of one endpoint.
    pub(crate) fn client_of(&self, endpoint: &str) -> Result<Client, Failure> {
        Ok(Client::with_options([endpoint], self.options.clone())?)
    }

    /// Writes a result to standard output.
    pub(crate) fn print(&self, text: impl AsRef<[u8]>) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        let written = out.write_all(text.as_ref()).and_then(|()| out.flush());
        written.map_err(|error| Failure::error(format!("standard output: {error}")))
    }
}

fn endpoints(flag: &[String], env: impl Fn(&str) -> Option<String>) -> Vec<String> {
    if !flag.is_empty() {
        return flag.iter().map(|endpoint| endpoint.trim().to_owned()).collect();
    }
    let set = |name| env(name).filter(|value| !value.is_empty());
    let list = set("RAFTKV_ENDPOINTS").or_else(|| set("ETCDCTL_ENDPOINTS"));
    let list = list.unwrap_or_else(|| "127.0.0.1:2379".into());
    list.split(',').map(|endpoint| endpoint.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_comes_first_then_our_variable_then_etcdctls() {
        let env = |set: &'static [(&str, &str)]| {
            move |name: &str| {
                let found = set.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            }
        };
        let both = &[("RAFTKV_ENDPOINTS", "a:1, b:2"), ("ETCDCTL_ENDPOINTS", "c:3")];
        assert_eq!(endpoints(&["d:4".into()], env(both)), ["d:4"]);
        assert_eq!(endpoints(&[], env(both)), ["a:1", "b:2"]);
        let empty = &[("RAFTKV_ENDPOINTS", ""), ("ETCDCTL_ENDPOINTS", "c:3")];
        assert_eq!(endpoints(&[], env(empty)), ["c:3"]);
        assert_eq!(endpoints(&[], env(&[])), ["127.0.0.1:2379"]);
    }
}
