//! The table format, and what rows consist of.

use proto::etcdserverpb::{MemberListResponse, StatusResponse};

use crate::failure::Failure;
use crate::output::{Answer, Health};

/// Rows under a heading.
pub(crate) struct Table {
    pub(crate) heading: &'static [&'static str],
    pub(crate) rows: Vec<Vec<String>>,
}

pub(crate) fn render(answer: &Answer<'_>) -> Result<String, Failure> {
    match answer {
        Answer::Members(list) => Ok(members(list).draw()),
        Answer::Status(list) => Ok(statuses(list).draw()),
        Answer::Health(list) => Ok(healths(list).draw()),
        Answer::Get(_) | Answer::Put(_) | Answer::Delete(_) | Answer::Txn(_) => {
            Err(Failure::feature("table not supported as output format"))
        }
    }
}

impl Table {
    fn draw(&self) -> String {
        let widths: Vec<usize> = (0..self.heading.len())
            .map(|column| {
                let cells = self.rows.iter().map(|row| row[column].chars().count());
                cells.chain([self.heading[column].len()]).max().unwrap_or(0)
            })
            .collect();
        let rule = |left: &str, middle: &str, right: &str| {
            let lines: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
            format!("{left}{}{right}\n", lines.join(middle))
        };
        let line = |cells: Vec<String>| format!("│{}│\n", cells.join("│"));
        let heading = self.heading.iter().zip(&widths);
        let mut text = rule("┌", "┬", "┐");
        text += &line(heading.map(|(name, w)| format!(" {:^w$} ", name.to_uppercase())).collect());
        text += &rule("├", "┼", "┤");
        for row in &self.rows {
            text +=
                &line(row.iter().zip(&widths).map(|(cell, w)| format!(" {cell:>w$} ")).collect());
        }
        text + &rule("└", "┴", "┘")
    }
}

pub(crate) fn members(list: &MemberListResponse) -> Table {
    let rows = list.members.iter().map(|member| {
        let status = if member.name.is_empty() { "unstarted" } else { "started" };
        vec![
            format!("{:x}", member.id),
            status.into(),
            member.name.clone(),
            member.peer_urls.join(","),
            member.client_urls.join(","),
            member.is_learner.to_string(),
        ]
    });
    let heading = &["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"];
    Table { heading, rows: rows.collect() }
}

fn healths(list: &[Health]) -> Table {
    let rows = list.iter().map(|health| {
        let well = health.error.is_empty().to_string();
        vec![health.endpoint.clone(), well, health.took.clone(), health.error.clone()]
    });
    Table { heading: &["endpoint", "health", "took", "error"], rows: rows.collect() }
}

pub(crate) fn statuses(list: &[(String, StatusResponse)]) -> Table {
    let rows = list.iter().map(|(endpoint, status)| {
        let member = status.header.as_ref().map_or(0, |header| header.member_id);
        let used = status.db_size_in_use.saturating_mul(100).checked_div(status.db_size);
        let downgrade = status.downgrade_info.clone().unwrap_or_default();
        vec![
            endpoint.clone(),
            format!("{member:x}"),
            status.version.clone(),
            status.storage_version.clone(),
            size(status.db_size),
            size(status.db_size_in_use),
            format!("{}%", 100 - used.unwrap_or(100)),
            size(status.db_size_quota),
            (status.leader == member).to_string(),
            status.is_learner.to_string(),
            status.raft_term.to_string(),
            status.raft_index.to_string(),
            status.raft_applied_index.to_string(),
            status.errors.join(", "),
            downgrade.target_version,
            downgrade.enabled.to_string(),
        ]
    });
    let heading = &[
        "endpoint",
        "ID",
        "version",
        "storage version",
        "db size",
        "in use",
        "percentage not in use",
        "quota",
        "is leader",
        "is learner",
        "raft term",
        "raft index",
        "raft applied index",
        "errors",
        "downgrade target version",
        "downgrade enabled",
    ];
    Table { heading, rows: rows.collect() }
}

/// Bytes in decimal units, with one digit behind the point below ten.
fn size(bytes: i64) -> String {
    let bytes = bytes.max(0) as f64;
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10.0 {
        return format!("{bytes} B");
    }
    let power = bytes.log10() as usize / 3;
    let value = (bytes / 1000f64.powi(power as i32) * 10.0 + 0.5).floor() / 10.0;
    let digits = if value < 10.0 { 1 } else { 0 };
    format!("{value:.digits$} {}", units[power])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let table = [
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (1000, "1.0 kB"),
            (16384, "16 kB"),
            (24576, "25 kB"),
            (2147483648, "2.1 GB"),
            (i64::MAX, "9.2 EB"),
        ];
        for (bytes, text) in table {
            assert_eq!(size(bytes), text);
        }
    }
}
