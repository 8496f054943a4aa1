//! Random histories that a model made: right by construction.

use bytes::Bytes;
use sim::check::linearizability::{Answer, Makers, Operation, Request};
use store::{
    Command, Compact, Compare, CompareResult, CompareTarget, DeleteRange, Model, Op, Operand, Put,
    Range, Revision, SortOrder, SortTarget, Txn,
};

use crate::random::Random;

/// What kind of history.
#[derive(Clone, Debug)]
pub struct Shape {
    pub clients: u32,
    pub operations: usize,
    pub keys: u64,
    /// Of values; small means that many puts are alike.
    pub values: u64,
    /// Operations of unknown fate.
    pub unknown_percent: u64,
    /// Of those, the ones that take effect.
    pub effect_percent: u64,
    /// Of operations that are reads.
    pub reads_percent: u64,
    /// Of operations that give up history.
    pub compactions_percent: u64,
    /// Of changes, those that are transactions.
    pub txns_percent: u64,
    /// Of puts that keep the value.
    pub keeps_percent: u64,
    /// The longest that an operation may take.
    pub span: u64,
}

impl Shape {
    pub fn usual() -> Shape {
        Shape {
            clients: 12,
            operations: 500,
            keys: 16,
            values: u64::MAX,
            unknown_percent: 5,
            effect_percent: 50,
            reads_percent: 45,
            compactions_percent: 1,
            txns_percent: 30,
            keeps_percent: 8,
            span: 60,
        }
    }

    pub fn any(random: &mut Random) -> Shape {
        Shape {
            clients: 1 + random.below(16) as u32,
            operations: 20 + random.below(500) as usize,
            keys: *random.pick(&[1, 3, 8, 16, 40]),
            values: *random.pick(&[2, 5, u64::MAX, u64::MAX]),
            unknown_percent: *random.pick(&[0, 5, 5, 15]),
            effect_percent: *random.pick(&[20, 50, 90]),
            reads_percent: *random.pick(&[15, 45, 80]),
            compactions_percent: *random.pick(&[0, 1, 5]),
            txns_percent: *random.pick(&[0, 30, 60]),
            keeps_percent: 8,
            span: *random.pick(&[5, 60, 60, 1000]),
        }
    }

    /// So small that every order can be tried.
    pub fn tiny(random: &mut Random) -> Shape {
        Shape {
            clients: 1 + random.below(4) as u32,
            operations: 2 + random.below(8) as usize,
            keys: 1 + random.below(3),
            values: 1 + random.below(3),
            unknown_percent: *random.pick(&[0, 20, 50, 70]),
            effect_percent: *random.pick(&[50, 90]),
            reads_percent: *random.pick(&[10, 50]),
            compactions_percent: *random.pick(&[0, 15, 30]),
            txns_percent: *random.pick(&[20, 50, 90]),
            keeps_percent: *random.pick(&[8, 40]),
            span: *random.pick(&[2, 5, 20]),
        }
    }
}

/// When an operation is called, takes effect, if ever, and ends.
struct Moments {
    client: u32,
    call: u64,
    effect: u64,
    /// `None` if its fate is unknown, with whether it takes effect.
    end: Result<u64, bool>,
}

/// The history of a seed.
pub fn history(seed: u64, shape: &Shape) -> Vec<Operation> {
    made(seed, shape).into_iter().map(|(operation, _)| operation).collect()
}

/// What somebody knows who saw how it was made.
pub fn makers(seed: u64, shape: &Shape) -> Makers {
    let made = made(seed, shape).into_iter().enumerate();
    made.filter_map(|(at, (_, revision))| Some((revision?, at))).collect()
}

/// The operations, each with the revision that it made if nobody was told.
fn made(seed: u64, shape: &Shape) -> Vec<(Operation, Option<Revision>)> {
    let random = &mut Random::new(seed);
    let mut moments = Vec::new();
    let mut free = vec![0; shape.clients as usize];
    while moments.len() < shape.operations {
        let client = random.below(u64::from(shape.clients)) as u32;
        let now = &mut free[client as usize];
        let call = *now + random.below(1 + shape.span / 4);
        let took = random.below(1 + shape.span);
        let end = call + took;
        if random.percent(shape.unknown_percent) {
            let factor = *random.pick(&[1, 1, 1, 30]);
            let later = random.below(1 + shape.span * factor);
            let end = Err(random.percent(shape.effect_percent));
            moments.push(Moments { client, call, effect: call + later, end });
        } else {
            let effect = call + random.below(1 + took);
            moments.push(Moments { client, call, effect, end: Ok(end) });
        }
        *now = end + 1;
    }
    moments.sort_by_key(|moments| moments.effect);
    let mut maker = Maker { random, shape, model: Model::new(), written: 0 };
    let mut history = Vec::new();
    for moments in &moments {
        let before = maker.model.revision();
        let operation = maker.operation(moments);
        let made = maker.model.revision();
        let told = operation.answer.is_some();
        history.push((operation, (made > before && !told).then_some(made)));
    }
    history.sort_by_key(|(operation, _)| operation.call);
    history
}

struct Maker<'a> {
    random: &'a mut Random,
    shape: &'a Shape,
    model: Model,
    written: u64,
}

impl Maker<'_> {
    fn operation(&mut self, moments: &Moments) -> Operation {
        let request = self.request();
        let answer = match moments.end {
            Err(false) => None,
            Ok(_) | Err(true) => Some(answer(&mut self.model, &request)),
        };
        let is_known = moments.end.is_ok();
        Operation {
            client: moments.client,
            call: moments.call,
            end: moments.end.ok(),
            request,
            answer: answer.filter(|_| is_known),
        }
    }

    fn request(&mut self) -> Request {
        if self.random.percent(self.shape.compactions_percent) {
            let revision = self.revision(30);
            return Request::Command(Command::Compact(Compact { revision }));
        }
        if self.random.percent(self.shape.reads_percent) {
            return match self.random.below(5) {
                0 => Request::Command(Command::Txn(self.reads())),
                _ => Request::Range(self.range()),
            };
        }
        if self.random.percent(self.shape.txns_percent) {
            return Request::Command(Command::Txn(self.txn(2)));
        }
        Request::Command(match self.random.below(7) {
            0..5 => Command::Put(self.put()),
            _ => Command::DeleteRange(self.delete()),
        })
    }

    fn key(&mut self) -> Bytes {
        format!("k{:02}", self.random.below(self.shape.keys)).into()
    }

    /// One key mostly.
    fn range_end(&mut self) -> Bytes {
        match self.random.below(8) {
            0 => Bytes::from_static(b"\0"),
            1 => self.key(),
            _ => Bytes::new(),
        }
    }

    fn value(&mut self) -> Bytes {
        self.written += 1;
        match self.shape.values {
            u64::MAX => self.written.to_string().into(),
            values => self.random.below(values).to_string().into(),
        }
    }

    /// A revision of the past, or rarely of the future.
    fn revision(&mut self, back: u64) -> i64 {
        let now = self.model.revision().0;
        now + 1 - self.random.below(back).min(now as u64) as i64
    }

    fn range(&mut self) -> Range {
        let mut range = Range { key: self.key(), range_end: self.range_end(), ..Range::default() };
        if self.random.percent(15) {
            range.revision = self.revision(20);
        }
        if self.random.percent(25) {
            range.limit = self.random.below(4) as i64;
            range.keys_only = self.random.percent(30);
            range.count_only = self.random.percent(20);
            range.sort_order =
                *self.random.pick(&[SortOrder::None, SortOrder::Ascend, SortOrder::Descend]);
            range.sort_target = *self.random.pick(&[
                SortTarget::Key,
                SortTarget::Mod,
                SortTarget::Version,
                SortTarget::Unknown(7),
            ]);
            if self.random.percent(30) {
                range.min_mod_revision = self.revision(10);
            }
        }
        range
    }

    fn put(&mut self) -> Put {
        let ignore_value = self.random.percent(self.shape.keeps_percent);
        Put {
            key: self.key(),
            value: if ignore_value { Bytes::new() } else { self.value() },
            prev_kv: self.random.percent(40),
            ignore_value,
            ignore_lease: self.random.percent(2),
            ..Put::default()
        }
    }

    fn delete(&mut self) -> DeleteRange {
        let prev_kv = self.random.percent(40);
        DeleteRange { key: self.key(), range_end: self.range_end(), prev_kv }
    }

    /// A condition that may well hold.
    fn compare(&mut self) -> Compare {
        let (key, range_end) = (self.key(), self.range_end());
        let found = self.model.key_value(&key, self.model.revision()).cloned().unwrap_or_default();
        let miss = self.random.percent(30);
        let (target, operand) = match self.random.below(4) {
            0 => (CompareTarget::Version, Operand::Version(found.version + i64::from(miss))),
            1 => (CompareTarget::Mod, Operand::Mod(found.mod_revision.0 - i64::from(miss))),
            2 => (CompareTarget::Create, Operand::Create(found.create_revision.0)),
            _ => (CompareTarget::Value, Operand::Value(found.value)),
        };
        let result = *self.random.pick(&[
            CompareResult::Equal,
            CompareResult::Equal,
            CompareResult::Greater,
            CompareResult::Less,
            CompareResult::NotEqual,
        ]);
        Compare { key, range_end, result, target, operand }
    }

    fn reads(&mut self) -> Txn {
        let compare = (0..self.random.below(2)).map(|_| self.compare()).collect();
        let success = (0..self.random.below(3)).map(|_| Op::Range(self.range())).collect();
        let failure = (0..self.random.below(2)).map(|_| Op::Range(self.range())).collect();
        Txn { compare, success, failure }
    }

    fn txn(&mut self, depth: u32) -> Txn {
        let compare = (0..self.random.below(3)).map(|_| self.compare()).collect();
        let success = (0..1 + self.random.below(2)).map(|_| self.op(depth)).collect();
        let failure = (0..self.random.below(2)).map(|_| self.op(depth)).collect();
        Txn { compare, success, failure }
    }

    fn op(&mut self, depth: u32) -> Op {
        match self.random.below(if depth > 0 { 9 } else { 8 }) {
            0..4 => Op::Put(self.put()),
            4..6 => Op::Range(self.range()),
            6..8 => Op::DeleteRange(self.delete()),
            _ => Op::Txn(self.txn(depth - 1)),
        }
    }
}

/// What a model answers.
pub fn answer(model: &mut Model, request: &Request) -> Answer {
    let revision = |model: &Model| -> Revision { model.revision() };
    match request {
        Request::Range(range) => match model.range(range) {
            Ok(result) => Answer::Range(result, revision(model)),
            Err(refusal) => Answer::Refused(refusal),
        },
        Request::Command(command) => match model.apply(command) {
            Ok(outcome) => Answer::Done(outcome, revision(model)),
            Err(refusal) => Answer::Refused(refusal),
        },
    }
}
