//! Links between members whose speed is set: every member in a network namespace of its own, joined
//! to each other and to the test by pairs of virtual interfaces. Linux, as root, with `ip` and `tc`.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What all names of namespaces begin with; then the test's process id.
const PREFIX: &str = "raft-kv-test";
/// The number of the test's own namespace; members count from 0.
const CLIENT: usize = 99;

/// Namespaces with links between them; gone when this is dropped.
pub struct Network {
    size: usize,
}

impl Network {
    /// Lays out a network for so many members, and moves this thread into it: what it connects to
    /// from now on, and processes it starts, are there.
    ///
    /// # Errors
    /// Why that is not possible here.
    pub fn enter(size: usize) -> Result<Network, String> {
        remove_stale();
        // From here on whatever exists is removed again, also when something fails.
        let network = Network { size };
        for n in network.places() {
            ip(&["netns", "add", &name(n)])?;
            ip(&["-n", &name(n), "link", "set", "lo", "up"])?;
            ip(&["-n", &name(n), "address", "add", &format!("{}/32", host(n)), "dev", "lo"])?;
        }
        let places: Vec<usize> = network.places().collect();
        for (at, &a) in places.iter().enumerate() {
            for &b in &places[at + 1..] {
                link(a, b)?;
            }
        }
        let client = File::open(Path::new("/run/netns").join(name(CLIENT)))
            .map_err(|error| error.to_string())?;
        move_into_link_name_space(client.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| error.to_string())?;
        Ok(network)
    }

    /// The addresses of the members.
    pub fn hosts(&self) -> Vec<String> {
        (0..self.size).map(host).collect()
    }

    /// Runs a member's command line in its namespace.
    pub fn wrapper(&self, member: usize) -> Vec<String> {
        ["ip", "netns", "exec", &name(member)].map(str::to_owned).to_vec()
    }

    /// Sets how many bytes a second pass from each member to each other one.
    ///
    /// # Errors
    /// What `tc` says.
    pub fn limit(&self, bytes_per_second: u64) -> Result<(), String> {
        for a in 0..self.size {
            for b in (0..self.size).filter(|b| *b != a) {
                let rate = format!("{}bit", 8 * bytes_per_second);
                let filter = ["tbf", "rate", &rate, "burst", "32kb", "limit", "64kb"];
                let place = ["-n", &name(a), "qdisc", "replace", "dev", &interface(b), "root"];
                run("tc", &[&place[..], &filter[..]].concat())?;
            }
        }
        Ok(())
    }

    fn places(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.size).chain([CLIENT])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for n in self.places() {
            let _ = ip(&["netns", "delete", &name(n)]);
        }
    }
}

/// Joins two namespaces: a pair of interfaces, and a route at either end.
fn link(a: usize, b: usize) -> Result<(), String> {
    let (in_a, in_b) = (interface(b), interface(a));
    let pair = ["link", "add", &in_a, "type", "veth", "peer", "name", &in_b, "netns", &name(b)];
    ip(&[&["-n", &name(a)], &pair[..]].concat())?;
    for (here, there) in [(a, b), (b, a)] {
        let (place, interface) = (name(here), interface(there));
        ip(&["-n", &place, "link", "set", &interface, "up"])?;
        let route = ["route", "add", &host(there), "dev", &interface, "src", &host(here)];
        ip(&[&["-n", &place], &route[..]].concat())?;
    }
    Ok(())
}

fn name(n: usize) -> String {
    format!("{PREFIX}-{}-{n}", std::process::id())
}

/// The interface towards a place.
fn interface(to: usize) -> String {
    format!("to-{to}")
}

fn host(n: usize) -> String {
    format!("10.77.0.{}", n + 1)
}

/// Removes what a test that was killed has left.
fn remove_stale() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        if process.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            let _ = ip(&["netns", "delete", &name]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}", arguments.join(" "), words.trim()))
}
