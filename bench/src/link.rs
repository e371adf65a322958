//! Counts what crosses the link, as the kernel counts it for the connections between the two gateways.
//!
//! In: the port the recovery gateway listens on. Out: bytes in both directions.
//! Why not a proxy: `understudy up` lets its gateways meet directly, and that is the installation to measure.

use std::collections::HashMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Bytes so far by connection, named by its two ends.
#[derive(Debug)]
pub(crate) struct LinkBytes(HashMap<String, u64>);

impl LinkBytes {
    pub(crate) fn read(port: u16) -> Result<Self> {
        let output = Command::new("ss")
            .args(["--tcp", "--info", "--numeric", "--no-header", "--oneline", "state", "established"])
            .arg(format!("sport = :{port}"))
            .output()
            .context("could not run ss: apt-get install iproute2")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "ss failed: {}", String::from_utf8_lossy(&output.stderr));
        let connections: HashMap<_, _> = text.lines().map(parse).collect();
        ensure!(
            !connections.is_empty(),
            "no connection between the gateways was found, so its bytes cannot be counted"
        );
        Ok(Self(connections))
    }

    /// What passed since; a connection that was made meanwhile counts from its beginning.
    pub(crate) fn since(&self, before: &Self) -> u64 {
        self.0.iter().map(|(ends, bytes)| bytes - before.0.get(ends).copied().unwrap_or(0).min(*bytes)).sum()
    }
}

/// One line: queue lengths, both ends, then the counters.
fn parse(line: &str) -> (String, u64) {
    let ends = line.split_whitespace().skip(2).take(2).collect::<Vec<_>>().join(" ");
    let counters = line.split_whitespace().filter_map(|word| {
        word.strip_prefix("bytes_sent:").or_else(|| word.strip_prefix("bytes_received:"))?.parse::<u64>().ok()
    });
    (ends, counters.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_of_a_connection_are_added() {
        let line = "0      0      127.0.0.1:8443  127.0.0.1:40312  cubic rto:204 bytes_sent:31 bytes_acked:31 bytes_received:5810 segs_out:4";
        assert_eq!(parse(line), ("127.0.0.1:8443 127.0.0.1:40312".to_owned(), 5841));
    }
}
