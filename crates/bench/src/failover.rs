//! The death of a leader: how long until a write is acknowledged again, and what becomes of the
//! writes that were sent meanwhile.
//!
//! A writer starts a put every millisecond, whatever the answers do, in turn at the two members
//! that will survive, each put on a task of its own and told apart by time. After half a second
//! the leader is killed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use raft_kv_client::{Client, Code, Options};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::MissedTickBehavior;

use crate::cluster::{Cluster, Ground, MEMBERS};
use crate::compare::BOTH;
use crate::findings::{Findings, Round};
use crate::interrupt;
use crate::report;
use crate::trouble::{OrTrouble, Outcome, Trouble};

/// Between two puts.
const PUT_INTERVAL: Duration = Duration::from_millis(1);
/// Puts go on so long before the kill, and after the first acknowledgement.
const BEFORE: Duration = Duration::from_millis(500);
const AFTER: Duration = Duration::from_millis(500);
/// A put without an answer within this time has none.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// A cluster that acknowledges nothing for so long does not recover.
const RECOVERY_LIMIT: Duration = Duration::from_secs(30);
const KEYS: u64 = 1000;
const VALUE_BYTES: usize = 256;

/// So many rounds of each system, in turn.
pub fn measure(ground: &Ground, rounds: usize, findings: &mut Findings) -> Outcome {
    let mut clusters = Vec::new();
    for system in BOTH {
        clusters.push(ground.start(system)?);
        findings.failover.push((system, Vec::new()));
    }
    for _ in 0..rounds {
        for (cluster, (_, found)) in clusters.iter_mut().zip(&mut findings.failover) {
            found.push(round(cluster)?);
        }
    }
    report::text::failover(&findings.failover);
    Ok(())
}

fn round(cluster: &mut Cluster) -> Outcome<Round> {
    cluster.serves()?;
    let leader = cluster.leader()?;
    let survivors: Vec<String> =
        (0..MEMBERS).filter(|n| *n != leader).map(|n| cluster.endpoint(n)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.or_trouble("no runtime")?;
    let found = LocalSet::new().block_on(&runtime, async {
        let writer = Writer::new(&survivors)?;
        writer.connect().await?;
        writer.go(cluster, leader).await
    })?;
    Ok(found)
}

/// What became of one put.
struct Shot {
    sent: Instant,
    answered: Instant,
    answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Acknowledged,
    Refused,
    Silence,
}

struct Writer {
    clients: Vec<Client>,
    value: Vec<u8>,
    shots: Rc<RefCell<Vec<Shot>>>,
    /// When the leader was killed, and a put sent after that acknowledged.
    killed: Rc<Cell<Option<Instant>>>,
    recovered: Rc<Cell<Option<Instant>>>,
}

impl Writer {
    fn new(survivors: &[String]) -> Outcome<Writer> {
        let options = Options::default().request_timeout(ANSWER_LIMIT);
        // One endpoint each: a client of both would hide silence of the one behind the other.
        let clients = survivors.iter().map(|one| Client::with_options([one], options.clone()));
        Ok(Writer {
            clients: clients.collect::<Result<_, _>>().or_trouble("a client")?,
            value: vec![b'v'; VALUE_BYTES],
            shots: Rc::default(),
            killed: Rc::default(),
            recovered: Rc::default(),
        })
    }

    async fn connect(&self) -> Outcome {
        for client in &self.clients {
            client.put(("connected", "")).await.or_trouble("a put before the kill")?;
        }
        Ok(())
    }

    async fn go(self, cluster: &mut Cluster, leader: usize) -> Outcome<Round> {
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        let mut ticks = tokio::time::interval(PUT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for n in 0.. {
            ticks.tick().await;
            interrupt::check()?;
            if self.killed.get().is_none() && start.elapsed() >= BEFORE {
                self.killed.set(Some(cluster.kill(leader)));
            }
            if self.recovered.get().is_some_and(|recovered| recovered.elapsed() > AFTER) {
                break;
            }
            if start.elapsed() > RECOVERY_LIMIT {
                let name = cluster.system.name();
                return Err(Trouble(format!("{name} does not recover from its leader's death")));
            }
            self.shoot(&mut tasks, n);
        }
        cluster.restart(leader)?;
        while tasks.join_next().await.is_some() {}
        let killed = self.killed.get().unwrap_or(start);
        let round = round_of(&self.shots.borrow(), killed);
        round.ok_or_else(|| Trouble("no put was acknowledged".to_owned()))
    }

    fn shoot(&self, tasks: &mut JoinSet<()>, n: u64) {
        let client = self.clients[n as usize % self.clients.len()].clone();
        let (key, value) = (format!("{:08}", n % KEYS), self.value.clone());
        let (shots, killed) = (Rc::clone(&self.shots), Rc::clone(&self.killed));
        let recovered = Rc::clone(&self.recovered);
        tasks.spawn_local(async move {
            let sent = Instant::now();
            let answer = match client.put((key, value)).await {
                Ok(_) => Answer::Acknowledged,
                Err(error) if error.code() == Code::DeadlineExceeded => Answer::Silence,
                Err(_) => Answer::Refused,
            };
            let answered = Instant::now();
            let is_after = killed.get().is_some_and(|killed| sent >= killed);
            if answer == Answer::Acknowledged && is_after && recovered.get().is_none() {
                recovered.set(Some(answered));
            }
            shots.borrow_mut().push(Shot { sent, answered, answer });
        });
    }
}

/// What was acknowledged for the dead leader's last breath does not count as recovery: only writes
/// sent after it do.
fn round_of(shots: &[Shot], killed: Instant) -> Option<Round> {
    let is_next = |shot: &&Shot| shot.sent >= killed && shot.answer == Answer::Acknowledged;
    let first = shots.iter().filter(is_next).map(|shot| shot.answered).min()?;
    let count = |answer| shots.iter().filter(|shot| shot.answer == answer).count() as u64;
    Some(Round {
        seconds: (first - killed).as_secs_f64(),
        sent: shots.len() as u64,
        refused: count(Answer::Refused),
        unanswered: count(Answer::Silence),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_writes_after_the_kill_show_recovery() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let shot = |sent, answered, answer| Shot { sent: at(sent), answered: at(answered), answer };
        let shots = [
            shot(90, 101, Answer::Acknowledged),
            shot(110, 5110, Answer::Silence),
            shot(120, 130, Answer::Refused),
            shot(140, 400, Answer::Acknowledged),
            shot(150, 350, Answer::Acknowledged),
        ];
        let round = round_of(&shots, at(100)).unwrap();
        assert_eq!(round, Round { seconds: 0.25, sent: 5, refused: 1, unanswered: 1 });
        assert_eq!(round_of(&shots[..3], at(100)), None);
    }
}
