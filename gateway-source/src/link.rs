//! The client's end of the link: one HTTP/2 connection to the recovery gateway.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use reqwest::{Body, Client, Response, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, de::DeserializeOwned};
use understudy_protocol::{
    MailboxId,
    codec::{self, CodecError},
    messages::{Directives, GATEWAY_HEADER, Heartbeat, Hello, Known, Report, Shipped, Welcome},
};
use uuid::Uuid;

/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An idle connection is tested this often, so that a half-open one is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long an answer may keep us waiting once a request has gone out, beyond what the request itself asks for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A shipment slower than this is given up and begun again, in bytes a second.
const SLOWEST_BYTES_A_SECOND: u64 = 8 << 10;

/// The recovery gateway listens to another source gateway.
#[derive(Debug, thiserror::Error)]
#[error("the recovery gateway turned this source gateway away: {0}")]
pub(crate) struct TurnedAway(String);

/// The recovery gateway as the source gateway reaches it. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    client: Client,
    base: Arc<str>,
    /// Do both gateways work on one data folder?
    shares_spool: bool,
    /// The recovery gateway said that it takes spool files by name.
    hands_over: Arc<AtomicBool>,
}

impl Link {
    /// `gateway` is this process life, named in every request.
    pub(crate) fn new(
        urls: &[String],
        secret: &SecretString,
        gateway: Uuid,
        shares_spool: bool,
    ) -> anyhow::Result<Self> {
        let base = urls.first().context("no recovery_url is configured")?;
        let mut token = header::HeaderValue::from_str(&format!("Bearer {}", secret.expose_secret()))
            .context("the link secret has characters that HTTP does not carry")?;
        token.set_sensitive(true);
        let name = header::HeaderName::from_static(GATEWAY_HEADER);
        let life = header::HeaderValue::from_str(&gateway.to_string()).context("a gateway's name is no header")?;
        let client = Client::builder()
            .http2_prior_knowledge()
            .http2_adaptive_window(false)
            .http2_initial_stream_window_size(4 << 20)
            .http2_initial_connection_window_size(16 << 20)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .http2_keep_alive_timeout(KEEP_ALIVE)
            .http2_keep_alive_while_idle(true)
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy()
            .default_headers([(header::AUTHORIZATION, token), (name, life)].into_iter().collect())
            .build()
            .context("could not make an HTTP client")?;
        let base = base.trim_end_matches('/').into();
        Ok(Self { client, base, shares_spool, hands_over: Arc::default() })
    }

    fn url(&self, route: &str) -> String {
        format!("{}/link/v1/{route}", self.base)
    }

    async fn post(&self, route: &str, body: Body, patience: Option<Duration>) -> anyhow::Result<Response> {
        let mut request = self.client.post(self.url(route)).body(body);
        if let Some(patience) = patience {
            request = request.timeout(patience);
        }
        let response = request.send().await.with_context(|| format!("could not reach {}", self.base))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let said = response.text().await.unwrap_or_default();
        if status == StatusCode::UNAUTHORIZED {
            anyhow::bail!("the recovery gateway does not know our link secret");
        }
        if status == StatusCode::FORBIDDEN {
            return Err(TurnedAway(said).into());
        }
        anyhow::bail!("the recovery gateway answered {status}: {said}")
    }

    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        route: &str,
        question: &Q,
        patience: Duration,
    ) -> anyhow::Result<A> {
        let body = codec::encode(question)?;
        let answer =
            self.post(route, body.into(), Some(patience)).await?.bytes().await.context("the answer broke off")?;
        Ok(codec::decode(&answer)?)
    }

    pub(crate) async fn hello(&self, hello: &Hello) -> anyhow::Result<Welcome> {
        let welcome: Welcome = self.ask("hello", hello, PATIENCE).await?;
        self.hands_over.store(self.shares_spool && welcome.hands_over, Ordering::Relaxed);
        Ok(welcome)
    }

    /// Are spool files handed over by name?
    pub(crate) fn hands_over(&self) -> bool {
        self.hands_over.load(Ordering::Relaxed)
    }

    pub(crate) async fn heartbeat(&self, heartbeat: &Heartbeat) -> anyhow::Result<Directives> {
        let wait = Duration::from_millis(heartbeat.wait_ms);
        self.ask("heartbeat", heartbeat, wait + PATIENCE).await
    }

    pub(crate) async fn report(&self, report: &Report) -> anyhow::Result<()> {
        self.post("report", codec::encode(report)?.into(), Some(PATIENCE)).await?;
        Ok(())
    }

    /// Ships a body of frames with about this much content. However thin the line: one that stands still is given up.
    pub(crate) async fn ship(&self, body: Body, content_bytes: u64) -> anyhow::Result<Shipped> {
        let patience = PATIENCE + Duration::from_secs(content_bytes / SLOWEST_BYTES_A_SECOND);
        let answer = self.post("ship", body, Some(patience)).await?.bytes().await.context("the answer broke off")?;
        Ok(codec::decode(&answer)?)
    }

    /// Sends what the primary holds, for a verification.
    pub(crate) async fn inventory(&self, id: Uuid, body: Body) -> anyhow::Result<()> {
        self.post(&format!("inventory/{id}"), body, None).await?;
        Ok(())
    }

    /// What the recovery site holds of a mailbox, frame by frame.
    pub(crate) async fn known(&self, mailbox: MailboxId) -> anyhow::Result<KnownFrames> {
        let response = self.post(&format!("known/{mailbox}"), Body::default(), None).await?;
        Ok(KnownFrames { response, buffer: BytesMut::new() })
    }
}

/// Frames as they arrive.
pub(crate) struct KnownFrames {
    response: Response,
    buffer: BytesMut,
}

impl KnownFrames {
    /// The next frame; an end without [`Known::End`] is an error.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Known> {
        loop {
            if let Some((frame, taken)) = codec::decode_frame(&self.buffer)? {
                let _ = self.buffer.split_to(taken);
                return Ok(frame);
            }
            let piece: Bytes =
                self.response.chunk().await.context("the answer broke off")?.ok_or(CodecError::Truncated)?;
            self.buffer.extend_from_slice(&piece);
        }
    }
}
