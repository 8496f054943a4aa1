//! endpoint health, endpoint status, member list.

use std::time::Instant;

use proto::etcdserverpb::AlarmType;
use raft_kv_client::{Client, Code};

use crate::arguments::{Endpoint, Endpoints, Member};
use crate::failure::Failure;
use crate::output::{Answer, Format, Health};
use crate::session::Session;
use crate::{duration, keys};

pub(crate) async fn run(session: &Session, command: Endpoint) -> Result<(), Failure> {
    match command {
        Endpoint::Health(which) => health(session, &endpoints(session, &which).await?).await,
        Endpoint::Status(which) => status(session, &endpoints(session, &which).await?).await,
    }
}

pub(crate) async fn member(session: &Session, command: Member) -> Result<(), Failure> {
    let Member::List { consistency } = command;
    let linearizable = !keys::is_serializable(&consistency)?;
    let list = session.client()?.member_list(linearizable).await?;
    session.print(Answer::Members(&list).render(session.style())?)
}

async fn endpoints(session: &Session, which: &Endpoints) -> Result<Vec<String>, Failure> {
    if !which.cluster {
        return Ok(session.endpoints.clone());
    }
    let list = session.client()?.member_list(true).await.map_err(|error| {
        let text = "failed to fetch endpoints from etcd cluster member list";
        Failure::error(format!("{text}: {error}"))
    })?;
    Ok(list.members.into_iter().flat_map(|member| member.client_urls).collect())
}

async fn health(session: &Session, endpoints: &[String]) -> Result<(), Failure> {
    let mut tasks = Vec::new();
    for endpoint in endpoints {
        let (client, endpoint) = (session.client_of(endpoint)?, endpoint.clone());
        tasks.push(tokio::spawn(async move {
            let start = Instant::now();
            let error = what_ails(&client, start).await;
            Health { endpoint, took: duration::show(error.1), error: error.0 }
        }));
    }
    let mut list = Vec::new();
    for task in tasks {
        list.push(task.await.map_err(|error| Failure::error(error.to_string()))?);
    }
    session.print(Answer::Health(&list).render(session.style())?)?;
    let ill: Vec<&Health> = list.iter().filter(|health| !health.error.is_empty()).collect();
    if ill.is_empty() {
        return Ok(());
    }
    if session.format == Format::Simple {
        for health in ill {
            let Health { endpoint, error, .. } = health;
            eprintln!("{endpoint} is unhealthy: failed to commit proposal: {error}");
        }
    }
    Err(Failure::error("unhealthy cluster"))
}

/// What is wrong with the one endpoint of `client`, empty for nothing, and how long its read took.
async fn what_ails(client: &Client, start: Instant) -> (String, std::time::Duration) {
    // A read of any key takes a round through the cluster.
    let answer = client.get("health").await;
    let took = start.elapsed();
    match answer {
        // Who is denied permission was answered by a cluster that works.
        Err(error) if error.code() != Code::PermissionDenied => (error.to_string(), took),
        _ => match client.alarms().await {
            Ok(alarms) if alarms.is_empty() => (String::new(), took),
            Ok(alarms) => {
                let names = alarms.iter().map(|member| match member.alarm() {
                    AlarmType::Nospace => "NOSPACE ",
                    AlarmType::Corrupt => "CORRUPT ",
                    AlarmType::None => "UNKNOWN ",
                });
                (format!("Active Alarm(s): {}", names.collect::<String>()), took)
            }
            // A server that knows no alarms has none.
            Err(error) if error.code() == Code::Unimplemented => (String::new(), took),
            Err(_) => ("Unable to fetch the alarm list".into(), took),
        },
    }
}

async fn status(session: &Session, endpoints: &[String]) -> Result<(), Failure> {
    let mut list = Vec::new();
    let mut all = true;
    for endpoint in endpoints {
        match session.client_of(endpoint)?.status().await {
            Ok(status) => list.push((endpoint.clone(), status)),
            Err(error) => {
                all = false;
                eprintln!("Failed to get the status of endpoint {endpoint} ({error})");
            }
        }
    }
    session.print(Answer::Status(&list).render(session.style())?)?;
    if all { Ok(()) } else { Err(Failure::error("")) }
}
