//! Certificates of clients: the user is the common name, each group an organisation.
//!
//! The DER is written here because rcgen, which makes the authority, knows one organisation in a
//! name and no more.

use jiff::Timestamp;
use rcgen::SigningKey;
use yasna::{
    DERWriter, Tag, construct_der,
    models::ObjectIdentifier,
    tags::{TAG_GENERALIZEDTIME, TAG_UTCTIME},
};

const ECDSA_WITH_SHA256: &[u64] = &[1, 2, 840, 10045, 4, 3, 2];
const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
const ORGANIZATION: &[u64] = &[2, 5, 4, 10];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const CLIENT_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 2];

/// Version 3 counts from 0.
const VERSION: u8 = 2;

/// Years from which on times are written in full (RFC 5280, 4.1.2.5).
const FULL_YEARS_FROM: i16 = 2050;

/// What a client's certificate says.
pub(super) struct Subject<'a> {
    pub user: &'a str,
    pub groups: &'a [String],
    pub from: Timestamp,
    pub until: Timestamp,
    /// The `SubjectPublicKeyInfo`.
    pub key: &'a [u8],
}

/// The certificate in DER; `issuer` is the authority's name as its own certificate has it.
pub(super) fn certificate(
    subject: &Subject,
    issuer: &[u8],
    authority: &impl SigningKey,
) -> Result<Vec<u8>, rcgen::Error> {
    let content = content(subject, issuer);
    let signature = authority.sign(&content)?;
    Ok(construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_der(&content);
            algorithm(writer.next());
            writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
        });
    }))
}

fn content(subject: &Subject, issuer: &[u8]) -> Vec<u8> {
    // Positive, 128 bits: a version 4 UUID has its variant in the middle, so the first bit is cut.
    let mut serial = *uuid::Uuid::new_v4().as_bytes();
    serial[0] &= 0x7f;
    construct_der(|writer| {
        writer.write_sequence(|writer| {
            let version = |writer: DERWriter| writer.write_u8(VERSION);
            writer.next().write_tagged(Tag::context(0), version);
            writer.next().write_bigint_bytes(&serial, true);
            algorithm(writer.next());
            writer.next().write_der(issuer);
            writer.next().write_sequence(|writer| {
                time(writer.next(), subject.from);
                time(writer.next(), subject.until);
            });
            writer.next().write_sequence(|writer| {
                let groups = subject.groups.iter().map(|group| (ORGANIZATION, group.as_str()));
                for (kind, value) in groups.chain([(COMMON_NAME, subject.user)]) {
                    attribute(writer.next(), kind, value);
                }
            });
            writer.next().write_der(subject.key);
            writer.next().write_tagged(Tag::context(3), extensions);
        });
    })
}

fn attribute(writer: DERWriter, kind: &[u64], value: &str) {
    writer.write_set(|writer| {
        writer.next().write_sequence(|writer| {
            writer.next().write_oid(&ObjectIdentifier::from_slice(kind));
            writer.next().write_utf8string(value);
        });
    });
}

fn algorithm(writer: DERWriter) {
    writer.write_sequence(|writer| {
        writer.next().write_oid(&ObjectIdentifier::from_slice(ECDSA_WITH_SHA256));
    });
}

fn time(writer: DERWriter, time: Timestamp) {
    let short = time.to_zoned(jiff::tz::TimeZone::UTC).year() < FULL_YEARS_FROM;
    let (tag, form) = match short {
        true => (TAG_UTCTIME, "%y%m%d%H%M%SZ"),
        false => (TAG_GENERALIZEDTIME, "%Y%m%d%H%M%SZ"),
    };
    let text = time.strftime(form).to_string();
    writer.write_tagged_implicit(tag, |writer| writer.write_bytes(text.as_bytes()));
}

fn extensions(writer: DERWriter) {
    writer.write_sequence(|writer| {
        // Bit 0, digitalSignature.
        let usage = construct_der(|writer| writer.write_bitvec_bytes(&[0x80], 1));
        extension(writer.next(), KEY_USAGE, &usage);
        let extended = construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_oid(&ObjectIdentifier::from_slice(CLIENT_AUTH));
            });
        });
        extension(writer.next(), EXTENDED_KEY_USAGE, &extended);
    });
}

fn extension(writer: DERWriter, kind: &[u64], value: &[u8]) {
    writer.write_sequence(|writer| {
        writer.next().write_oid(&ObjectIdentifier::from_slice(kind));
        writer.next().write_bool(true);
        writer.next().write_bytes(value);
    });
}
