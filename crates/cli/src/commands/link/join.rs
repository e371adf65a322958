//! `understudy link join`: makes this site's key and has it certified by the recovery site whose token it was given.
//!
//! Keeps true: nothing is written before the recovery site has certified the key; what it is was checked by the token's
//! fingerprint before the token's secret was sent.

use std::io::Read;
use std::time::Duration;

use anyhow::Context as _;
use base64::{Engine, prelude::BASE64_STANDARD};
use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use understudy_pairing::{Identity, JoinAnswer, JoinRequest, JoinToken, joining, recovery_name, why_refused};

use super::super::Context;
use crate::config;
use crate::failure::{Exit, Failure, Result, in_a_row};
use crate::output;
use crate::running::create_data_dir;

/// How long one address may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest answer.
const ANSWER: usize = 64 << 10;
const AGAIN: &str = "make a new token at the recovery site with `understudy link invite`";

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// What `understudy link invite` printed; `-` reads it from standard input
    token: String,
    /// What this site is called there [default: the name of this machine]
    #[arg(long)]
    name: Option<String>,
}

/// What the recovery site said.
enum Said {
    Certified(JoinAnswer, CertificateDer<'static>),
    /// It will not, and another address of it will not either.
    Refused {
        reason: String,
        remedy: String,
    },
}

#[derive(Deserialize)]
struct No {
    reason: String,
    remedy: String,
}

pub(crate) async fn run(join: &Join, context: &Context) -> Result<Exit> {
    let token = read(&join.token)?;
    let config = config::load(context.config.as_deref())?.config;
    create_data_dir(&config.data_dir)?;
    let before = Identity::open(&config.data_dir).map_err(|error| {
        Failure::new(
            "the keys of this site cannot be read",
            error.to_string(),
            "run this as the user that runs Understudy",
        )
    })?;
    let request = understudy_pairing::Request::new()
        .map_err(|error| Failure::new("no key could be made", error.to_string(), "report this, please"))?;
    let asked = JoinRequest {
        secret: BASE64_STANDARD.encode(token.secret),
        request: BASE64_STANDARD.encode(request.der()),
        name: join.name.clone().unwrap_or_else(machine),
        product_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let mut failures = Vec::new();
    for url in &token.urls {
        let asking = tokio::time::timeout(PATIENCE, ask(url, &token, &asked)).await;
        match asking.unwrap_or_else(|_| Err(anyhow::anyhow!("it did not answer within {} s", PATIENCE.as_secs()))) {
            Ok(Said::Certified(answer, authority)) => {
                let urls = token.urls.clone();
                let name = answer.name.clone();
                let identity = request.keep(&config.data_dir, name, urls, &authority, &answer.certificate);
                let identity = identity.map_err(|error| {
                    Failure::new(
                        "the certificate could not be kept",
                        error.to_string(),
                        "run this as the user that runs Understudy, with a new token",
                    )
                })?;
                return Ok(done(context, &config, &identity, &token, before.is_some()));
            }
            Ok(Said::Refused { reason, remedy }) => {
                return Err(Failure::new("the recovery site refused the token", reason, remedy));
            }
            Err(error) => failures.push(format!("{url}: {}", in_a_row(error.chain()))),
        }
    }
    Err(Failure::new(
        "the recovery site could not be asked",
        "",
        "check that this machine reaches it, then try the same token again",
    )
    .reasons(failures))
}

fn read(given: &str) -> Result<JoinToken> {
    let mut text = given.to_owned();
    if given == "-" {
        text.clear();
        std::io::stdin().take(64 << 10).read_to_string(&mut text).map_err(|error| {
            Failure::usage(
                "the token cannot be read",
                error.to_string(),
                "give it as an argument, or on standard input",
            )
        })?;
    }
    JoinToken::parse(&text).map_err(|error| {
        Failure::usage("that is no token", error.to_string(), "copy all of what `understudy link invite` printed")
    })
}

async fn ask(url: &str, token: &JoinToken, asked: &JoinRequest) -> anyhow::Result<Said> {
    let parsed = url::Url::parse(url)?;
    let host = parsed.host_str().context("it names no host")?.trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, parsed.port().unwrap_or(8443))).await?;
    let (tls, shown) = joining(token.authority)?;
    let stream = match TlsConnector::from(tls).connect(recovery_name(), stream).await {
        Ok(stream) => stream,
        Err(error) => match why_refused(&error) {
            Some(_)
                if matches!(
                    unwrapped(&error),
                    Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer))
                ) =>
            {
                return Ok(Said::Refused {
                    reason: format!(
                        "what answers at {url} is not the site that made the token: its fingerprint is another"
                    ),
                    remedy: "check the address, and whether somebody stands between the sites; the token was not sent"
                        .to_owned(),
                });
            }
            Some(why) => anyhow::bail!("{why}"),
            None => return Err(error.into()),
        },
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::post("/link/v1/join")
        .header(header::HOST, understudy_pairing::RECOVERY_NAME)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(bytes::Bytes::from(serde_json::to_vec(asked)?)))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body =
        Limited::new(response.into_body(), ANSWER).collect().await.map_err(|error| anyhow::anyhow!("{error}"))?;
    let body = body.to_bytes();
    if status.is_success() {
        let authority = shown.authority().context("the recovery site did not show who it is")?;
        return Ok(Said::Certified(serde_json::from_slice(&body).context("its answer cannot be read")?, authority));
    }
    let no: Option<No> = serde_json::from_slice(&body).ok();
    match no {
        Some(no) if status != StatusCode::SERVICE_UNAVAILABLE => {
            Ok(Said::Refused { reason: no.reason, remedy: no.remedy })
        }
        Some(no) => anyhow::bail!("{}", no.reason),
        None if status.is_client_error() => {
            Ok(Said::Refused { reason: format!("it answered {status}"), remedy: AGAIN.to_owned() })
        }
        None => anyhow::bail!("it answered {status}"),
    }
}

fn unwrapped(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// What this machine calls itself.
fn machine() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn done(context: &Context, config: &config::Config, identity: &Identity, token: &JoinToken, again: bool) -> Exit {
    if context.json {
        output::json(&json!({
            "name": identity.name,
            "recovery_urls": identity.recovery_urls,
            "recovery_fingerprint": token.authority.to_string(),
            "fingerprint": identity.fingerprint().to_string(),
            "expires_at": identity.life.until,
        }));
        return Exit::Done;
    }
    output::line(format!(
        "This site is now paired as {}{}.\n\
         The recovery site is {}\nIts fingerprint, which must be the one that `understudy link invite` showed:\n{}\n\
         The certificate of this site is good until {} and renews itself.",
        identity.name,
        if again { ", in place of an earlier pairing" } else { "" },
        identity.recovery_urls.join(" or "),
        token.authority,
        output::moment(Some(identity.life.until)),
    ));
    if config.source_plaintext {
        output::line("The configuration still asks for clear text: remove recovery_url and plaintext under [source].");
    } else {
        output::line(format!(
            "Start the source gateway: {} source. One that runs goes on by itself.",
            context.program()
        ));
    }
    Exit::Done
}
