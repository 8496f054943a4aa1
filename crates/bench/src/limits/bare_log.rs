//! A replicated log and nothing else: three processes, TCP, our write-ahead log on each, an answer
//! when two of the three have a record on disk. No calls, no elections, no keys.
//!
//! The leader: a thread per client that reads, one that orders, replicates and answers, one that
//! writes to the disk. A follower: one thread that reads what there is, writes it, and says so.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use wal::{Batch, EntryId, FileDisk, Identity, Options, Record, Wal};

use crate::arguments::BareLog;
use crate::trouble::{OrTrouble, Outcome};

/// Of a record: a key of 8 bytes, a value of 256, and what stands around them.
pub const RECORD_BYTES: usize = 280;
/// Read from a socket at once.
const READ_BYTES: usize = 1 << 20;
/// The followers may take so long to listen.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Runs one of the processes until it is killed.
pub fn serve(options: &BareLog) -> Outcome {
    let log = Log::create(&options.data)?;
    let listener = TcpListener::bind(options.listen).or_trouble(options.listen)?;
    match options.followers.as_slice() {
        [] => follow(log, &listener),
        followers => lead(log, &listener, followers),
    }
}

/// Our write-ahead log.
struct Log {
    wal: Wal<FileDisk>,
    last: u64,
}

impl Log {
    fn create(folder: &std::path::Path) -> Outcome<Log> {
        let disk = FileDisk::create(folder).or_trouble(folder.display())?;
        let wal = Wal::create(disk, Identity::default(), Options::default());
        Ok(Log { wal: wal.or_trouble(folder.display())?, last: 0 })
    }

    /// Makes records durable, all with one sync; answers the last one's index.
    fn append(&mut self, records: impl IntoIterator<Item = Bytes>) -> Outcome<u64> {
        let mut batch = Batch::default();
        for mut bytes in records {
            while !bytes.is_empty() {
                self.last += 1;
                let id = EntryId { term: 1, index: self.last };
                batch.records.push(Record { id, kind: 1, payload: bytes.split_to(RECORD_BYTES) });
            }
        }
        self.wal.append(&batch).or_trouble("the log")?;
        self.wal.release(self.last).or_trouble("the log")?;
        Ok(self.last)
    }
}

/// Whole records out of a stream of bytes.
struct Records {
    socket: TcpStream,
    buffer: BytesMut,
}

impl Records {
    fn new(socket: TcpStream) -> Records {
        Records { socket, buffer: BytesMut::new() }
    }

    /// Waits for bytes, and answers the records that are whole; `None` at the end.
    fn next(&mut self) -> Option<Bytes> {
        loop {
            let whole = self.buffer.len() / RECORD_BYTES * RECORD_BYTES;
            if whole > 0 {
                return Some(self.buffer.split_to(whole).freeze());
            }
            let kept = self.buffer.len();
            self.buffer.resize(kept + READ_BYTES, 0);
            let read = self.socket.read(&mut self.buffer[kept..]).unwrap_or(0);
            self.buffer.truncate(kept + read);
            if read == 0 {
                return None;
            }
        }
    }
}

fn follow(mut log: Log, listener: &TcpListener) -> Outcome {
    let (mut leader, _) = listener.accept().or_trouble("the leader")?;
    leader.set_nodelay(true).or_trouble("the leader")?;
    let mut records = Records::new(leader.try_clone().or_trouble("the leader")?);
    while let Some(bytes) = records.next() {
        let last = log.append([bytes])?;
        leader.write_all(&last.to_le_bytes()).or_trouble("the leader")?;
    }
    Ok(())
}

/// What reaches the thread that orders.
enum Mail {
    Client(TcpStream),
    Records {
        client: usize,
        bytes: Bytes,
    },
    /// A process (0 is the leader) has everything up to this index on disk.
    Durable {
        process: usize,
        last: u64,
    },
}

fn lead(log: Log, listener: &TcpListener, addresses: &[SocketAddr]) -> Outcome {
    let (mail, inbox) = mpsc::channel();
    let mut followers = Vec::new();
    for (process, address) in (1..).zip(addresses) {
        let follower = connect(*address)?;
        let answers = follower.try_clone().or_trouble(address)?;
        let mail = mail.clone();
        std::thread::spawn(move || hear(process, answers, &mail));
        followers.push(follower);
    }
    let (work, queue) = mpsc::channel();
    let durable = mail.clone();
    std::thread::spawn(move || write(log, &queue, &durable));
    let listener = listener.try_clone().or_trouble("the listener")?;
    std::thread::spawn(move || accept(&listener, &mail));
    order(&inbox, &mut followers, &work)
}

/// Connects; tries again while nobody listens there yet.
pub fn connect(address: SocketAddr) -> Outcome<TcpStream> {
    let start = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(socket) => {
                socket.set_nodelay(true).or_trouble(address)?;
                return Ok(socket);
            }
            Err(error) if start.elapsed() > CONNECT_LIMIT => return Err(error).or_trouble(address),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn hear(process: usize, mut answers: TcpStream, mail: &Sender<Mail>) {
    let mut last = [0; 8];
    while answers.read_exact(&mut last).is_ok() {
        let durable = Mail::Durable { process, last: u64::from_le_bytes(last) };
        if mail.send(durable).is_err() {
            return;
        }
    }
}

/// Whatever queued up during one sync is the next write.
fn write(mut log: Log, queue: &Receiver<Bytes>, mail: &Sender<Mail>) -> Outcome {
    while let Ok(first) = queue.recv() {
        let last = log.append(std::iter::once(first).chain(queue.try_iter()))?;
        if mail.send(Mail::Durable { process: 0, last }).is_err() {
            break;
        }
    }
    Ok(())
}

fn accept(listener: &TcpListener, mail: &Sender<Mail>) {
    for (client, socket) in listener.incoming().flatten().enumerate() {
        let _ = socket.set_nodelay(true);
        let Ok(answers) = socket.try_clone() else { continue };
        let _ = mail.send(Mail::Client(answers));
        let mail = mail.clone();
        std::thread::spawn(move || {
            let mut records = Records::new(socket);
            while let Some(bytes) = records.next() {
                let _ = mail.send(Mail::Records { client, bytes });
            }
        });
    }
}

fn order(inbox: &Receiver<Mail>, followers: &mut [TcpStream], disk: &Sender<Bytes>) -> Outcome {
    let mut clients: Vec<TcpStream> = Vec::new();
    let mut durable = vec![0; followers.len() + 1];
    // Whose records end at which index, and how many they are.
    let mut waiting: VecDeque<(usize, u64, u32)> = VecDeque::new();
    let mut last = 0;
    while let Ok(first) = inbox.recv() {
        let mut batch = BytesMut::new();
        for mail in std::iter::once(first).chain(inbox.try_iter()) {
            match mail {
                Mail::Client(socket) => clients.push(socket),
                Mail::Durable { process, last } => durable[process] = last,
                Mail::Records { client, bytes } => {
                    let count = bytes.len() / RECORD_BYTES;
                    last += count as u64;
                    waiting.push_back((client, last, count as u32));
                    batch.extend_from_slice(&bytes);
                }
            }
        }
        if !batch.is_empty() {
            let batch = batch.freeze();
            for follower in followers.iter_mut() {
                follower.write_all(&batch).or_trouble("a follower")?;
            }
            disk.send(batch).or_trouble("the disk")?;
        }
        let mut answers = vec![0_u32; clients.len()];
        let committed = committed(&durable);
        let done = waiting.partition_point(|(_, last, _)| *last <= committed);
        for (client, _, count) in waiting.drain(..done) {
            answers[client] += count;
        }
        for (client, count) in clients.iter_mut().zip(answers).filter(|(_, count)| *count > 0) {
            // A client that has gone needs no answer.
            let _ = client.write_all(&count.to_le_bytes());
        }
    }
    Ok(())
}

/// What a majority has.
fn committed(durable: &[u64]) -> u64 {
    let mut sorted = durable.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() - 1) / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_of_three_are_a_majority() {
        assert_eq!(committed(&[9, 3, 5]), 5);
        assert_eq!(committed(&[9, 0, 0]), 0);
        assert_eq!(committed(&[1, 2, 3, 4]), 2);
    }
}
