//! Delete of a collection: of each object that the selectors match.

use http::Response;

use super::{
    Call,
    delete::{DeleteOptions, Deleted, delete_object},
    form, read,
};
use crate::{body::Body, request::ListOptions, respond, status::Status};

pub(super) async fn delete_collection(
    call: &Call<'_>,
    body: &[u8],
) -> Result<Response<Body>, Status> {
    let options = DeleteOptions::parse(call.query, call.headers, body)?;
    let selection = ListOptions::parse(call.query, false)?;
    let (objects, metadata) = read::select(call, &selection)?;
    let mut items = Vec::with_capacity(objects.len());
    for object in objects {
        match delete_object(call, object, &options).await {
            Ok(Deleted::Gone(object) | Deleted::Held(object)) => {
                items.push(form::served_bytes(&call.resource, &object));
            }
            // Someone else deleted it first: that is what was asked for.
            Err(status) if status.reason == "NotFound" => {}
            Err(status) => return Err(status),
        }
    }
    Ok(respond::list(&call.resource, call.form, metadata, items))
}
