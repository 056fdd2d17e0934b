//! How a host becomes an agent: a token and a key for a name and a certificate.

use std::sync::Arc;

use muster_core::{Revision, ports::PortError};
use muster_wire::{
    convert::from_facts,
    v1::{Credentials, EnrolRequest, EnrolResponse, enrolment_server::Enrolment},
    version,
};
use tonic::{Request, Response, Status};
use tracing::{error, info, warn};

use crate::{
    authority::{Issued, SigningRequest},
    door::{Connection, Shared},
};

/// The enrolment service.
pub(crate) struct Enrol(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl Enrolment for Enrol {
    async fn enrol(
        &self,
        request: Request<EnrolRequest>,
    ) -> Result<Response<EnrolResponse>, Status> {
        let from = connection(&request)?.from;
        let request = request.into_inner();
        version::agree(request.protocol).map_err(|e| Status::failed_precondition(e.to_string()))?;
        let key =
            SigningRequest::parse(&request.signing_request).map_err(Status::invalid_argument)?;
        let facts = from_facts(request.facts, Revision::default()).map_err(invalid)?;
        let redeemed = self.0.ports.enrolments.redeem(&request.token, key.key_digest, facts);
        let agent = redeemed.await.map_err(|error| {
            warn!(%from, %error, "Refused an enrolment");
            refusal(error)
        })?;
        let issued = self.0.authority.issue(&agent, &key).map_err(|error| {
            error!(%agent, %error, "Cannot issue a certificate");
            Status::internal("the hub cannot issue a certificate; its log says why")
        })?;
        self.0.ports.enrolments.issued(&agent, issued.not_after).await.map_err(refusal)?;
        info!(%agent, %from, "Enrolled");
        let credentials = Some(credentials(&self.0, issued));
        Ok(Response::new(EnrolResponse { name: agent.to_string(), credentials }))
    }
}

/// What an agent needs to come back.
pub(crate) fn credentials(shared: &Shared, issued: Issued) -> Credentials {
    Credentials {
        certificate: issued.certificate,
        hub_authorities: vec![shared.authority.certificate().to_vec()],
    }
}

/// The connection that a call came in on.
pub(crate) fn connection<T>(request: &Request<T>) -> Result<Arc<Connection>, Status> {
    let connection = request.extensions().get::<Arc<Connection>>();
    connection.cloned().ok_or_else(|| Status::internal("the call came in on no connection"))
}

/// A port's refusal in the protocol's words.
pub(crate) fn refusal(error: PortError) -> Status {
    match error {
        PortError::Refused(why) => Status::permission_denied(why),
        PortError::NotFound(what) => Status::not_found(format!("{what} does not exist")),
        PortError::Unavailable(why) => Status::unavailable(why),
    }
}

/// A message that breaks a rule.
pub(crate) fn invalid(error: muster_wire::Refusal) -> Status {
    Status::invalid_argument(error.to_string())
}
