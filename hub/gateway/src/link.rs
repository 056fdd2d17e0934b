//! What an enrolled agent calls: its session, downloads, renewal of its certificate.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
};

use futures::Stream;
use muster_core::{Digest, ports::AgentFacts};
use muster_wire::{
    convert::{from_digest, from_digest_option, from_facts, from_revision},
    v1::{
        ContentChunk, ContentRequest, FromAgent, FromHub, Hello, RenewRequest, RenewResponse,
        from_agent, link_server::Link,
    },
    version,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{error, info};

use crate::{
    authority::SigningRequest,
    config::{HELLO_TIME_MAX, OUTBOX_MAX},
    content,
    door::{Connection, Shared},
    enrolment::{connection, credentials, invalid, refusal},
    peer::Peer,
    session::{Opening, Session},
};

/// The link service.
pub(crate) struct Sessions(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl Link for Sessions {
    type SessionStream = ReceiverStream<Result<FromHub, Status>>;
    type FetchContentStream = Pin<Box<dyn Stream<Item = Result<ContentChunk, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<FromAgent>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let connection = connection(&request)?;
        let peer = identified(&connection)?.clone();
        self.0.ports.enrolments.admit(&peer.agent, peer.key).await.map_err(refusal)?;
        let mut inbound = request.into_inner();
        let hello = hello(&mut inbound).await?;
        let protocol = version::agree(hello.protocol)
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
        let (facts, held) = heard(hello).map_err(invalid)?;
        if connection.in_session.swap(true, Ordering::Relaxed) {
            return Err(Status::failed_precondition("this connection has a session already"));
        }
        let (outbox, sent) = mpsc::channel(OUTBOX_MAX);
        let opening = Opening { connection, peer, facts, held, protocol };
        Session::begin(self.0.clone(), opening, outbox, inbound);
        Ok(Response::new(ReceiverStream::new(sent)))
    }

    async fn fetch_content(
        &self,
        request: Request<ContentRequest>,
    ) -> Result<Response<Self::FetchContentStream>, Status> {
        let connection = connection(&request)?;
        let agent = identified(&connection)?.agent.clone();
        let digest = from_digest("digest", &request.get_ref().digest).map_err(invalid)?;
        let stream = content::download(&self.0, &connection, &agent, digest).await?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        let connection = connection(&request)?;
        let Peer { agent, key, .. } = identified(&connection)?;
        let asked = SigningRequest::parse(&request.get_ref().signing_request)
            .map_err(Status::invalid_argument)?;
        if asked.key_digest != *key {
            return Err(Status::permission_denied(
                "a certificate is renewed for the key that the connection presents; for another \
                 key, join again with a new token",
            ));
        }
        self.0.ports.enrolments.admit(agent, *key).await.map_err(refusal)?;
        let issued = self.0.authority.issue(agent, &asked).map_err(|error| {
            error!(%agent, %error, "Cannot renew a certificate");
            Status::internal("the hub cannot issue a certificate; its log says why")
        })?;
        self.0.ports.enrolments.issued(agent, issued.not_after).await.map_err(refusal)?;
        connection.not_after.store(issued.not_after, Ordering::Relaxed);
        info!(%agent, "Renewed a certificate");
        Ok(Response::new(RenewResponse { credentials: Some(credentials(&self.0, issued)) }))
    }
}

/// The agent at the other end, if it has shown a certificate.
fn identified(connection: &Connection) -> Result<&Peer, Status> {
    connection.peer.as_ref().ok_or_else(|| {
        Status::unauthenticated(
            "no client certificate: enrol first, with a token (muster-agent join)",
        )
    })
}

async fn hello(inbound: &mut Streaming<FromAgent>) -> Result<Hello, Status> {
    let first = timeout(HELLO_TIME_MAX, inbound.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no Hello in time"))??;
    match first.and_then(|first| first.message) {
        Some(from_agent::Message::Hello(hello)) => Ok(hello),
        _ => Err(Status::invalid_argument("a session begins with Hello")),
    }
}

fn heard(hello: Hello) -> Result<(AgentFacts, Option<Digest>), muster_wire::Refusal> {
    let facts = from_facts(hello.facts, from_revision(hello.revision))?;
    Ok((facts, from_digest_option("assignment", &hello.assignment)?))
}
