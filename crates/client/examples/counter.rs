//! Counts up a key with compare-and-swap, from several tasks at once.
//!
//! ```text
//! cargo run -p raft-kv-client --example counter -- 127.0.0.1:2379
//! ```

use raft_kv_client::{Client, Compare, Comparison, Error, Put, Txn};

const KEY: &str = "example/counter";

async fn count_up(client: &Client) -> Result<(), Error> {
    loop {
        let answer = client.get(KEY).await?;
        let (value, revision) = match answer.kvs.first() {
            Some(kv) => (String::from_utf8_lossy(&kv.value).into_owned(), kv.mod_revision),
            None => ("0".to_owned(), 0),
        };
        let next = value.parse::<u64>().unwrap_or(0) + 1;
        let unchanged = Compare::mod_revision(KEY, Comparison::Equal, revision);
        let txn = Txn::new().when(unchanged).then(Put::new(KEY, next.to_string()));
        if client.txn(txn).await?.succeeded {
            return Ok(());
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let endpoints: Vec<String> = std::env::args().skip(1).collect();
    let client = Client::new(endpoints)?;
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { count_up(&client).await })
        })
        .collect();
    for task in tasks {
        task.await.expect("the task does not panic")?;
    }
    let answer = client.get(KEY).await?;
    println!("{}", String::from_utf8_lossy(&answer.kvs[0].value));
    Ok(())
}
