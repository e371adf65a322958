//! A certificate authority and a server certificate, made by `openssl`.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Makes `ca.pem`, `server.pem` and `server.key` in `dir`, for `address` and `localhost`, good for so many days.
pub(super) fn make(dir: &Path, address: Ipv4Addr, days: u32) -> Result<()> {
    fs::create_dir_all(dir)?;
    fs::write(
        dir.join("server.ext"),
        format!("subjectAltName=IP:{address},DNS:localhost\nbasicConstraints=CA:FALSE\n"),
    )?;
    const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let authority = [
        "req",
        "-x509",
        "-days",
        "30",
        "-subj",
        "/CN=Understudy test authority",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
    ];
    openssl(dir, &[authority.as_slice(), KEY.as_slice()].concat())?;
    let request = ["req", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"];
    openssl(dir, &[request.as_slice(), KEY.as_slice()].concat())?;
    let days = days.to_string();
    let signed =
        ["x509", "-req", "-days", &days, "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
    openssl(dir, &[signed.as_slice(), &["-extfile", "server.ext", "-out", "server.pem"]].concat())
}

fn openssl(dir: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new("openssl").args(arguments).current_dir(dir).output().context("could not run openssl")?;
    ensure!(output.status.success(), "openssl {arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
