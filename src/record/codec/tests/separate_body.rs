//! Records whose outcome has its body separately.

use super::*;

/// Red when the record changes its form, or exceeds the limit.
#[test]
fn record_says_that_its_body_is_apart() {
    let outcome = Outcome::new(StatusCode::OK, HeaderMap::new(), "0123456789");
    let content = Content::Cached {
        stored: outcome.into(),
        origin: Default::default(),
    };
    let mut whole = Vec::new();
    assert_eq!(content.write_separate(&name(), &mut whole, 1000), None);
    let mut written = Vec::new();
    content.write(&name(), &mut written);
    assert_eq!(whole, written);

    let mut parted = Vec::new();
    let body = content.write_separate(&name(), &mut parted, written.len() - 1);
    assert_eq!(body.map(|body| &body[..]), Some(&b"0123456789"[..]));
    let json = format!(
        "{{\"name\":\"{}\",\"status\":200,\"headers\":[],\"body\":10,\"apart\":true,\"attempts\":0}}\n",
        name()
    );
    assert_eq!(String::from_utf8(parted.clone()).unwrap(), json);

    let (lease, fingerprint) = ("01".repeat(16), "02".repeat(32));
    let line = format!("genesys-once/3 cached - {lease} 2 0 {fingerprint} 5 5\n");
    let bytes = [line.as_bytes(), &parted].concat();
    // A store that keeps no bodies apart has no such record.
    assert!(Record::decode(&name(), &bytes).unwrap_err().is_unreadable());
    let (record, length) = Record::decode_separate(&name(), &bytes).unwrap();
    assert_eq!(length, Some(10));
    let with = record.clone().with_body(Some("0123456789".into())).unwrap();
    let Content::Cached { stored, .. } = with.content else {
        panic!("not cached");
    };
    assert_eq!(
        (&stored.outcome.body()[..], stored.body),
        (&b"0123456789"[..], StoredBody::Full)
    );
    let Content::Cached { stored, .. } = record.with_body(None).unwrap().content else {
        panic!("not cached");
    };
    let outcome = &stored.outcome;
    let left = (outcome.status(), outcome.body().len(), stored.body);
    assert_eq!(left, (StatusCode::OK, 0, StoredBody::OmittedTooLarge));
    // What follows is no body of this record.
    let longer = [&bytes[..], b"0123456789"].concat();
    assert!(Record::decode_separate(&name(), &longer).is_err());
}

/// Without its body nothing of it can be decrypted, so it is no outcome without a body.
#[test]
fn sealed_outcome_without_its_body_is_unreadable() {
    let outcome = Outcome::sealed(HeaderMap::new(), vec![0xff; 50]);
    let mut parted = Vec::new();
    let content = Content::Cached {
        stored: outcome.into(),
        origin: Default::default(),
    };
    assert!(content.write_separate(&name(), &mut parted, 10).is_some());
    let (lease, fingerprint) = ("01".repeat(16), "02".repeat(32));
    let line = format!("genesys-once/3 cached - {lease} 2 0 {fingerprint} 5 5\n");
    let bytes = [line.as_bytes(), &parted].concat();
    let (record, _) = Record::decode_separate(&name(), &bytes).unwrap();
    let whole = record
        .clone()
        .with_body(Some(vec![0xff; 50].into()))
        .unwrap();
    let Content::Cached { stored, .. } = whole.content else {
        panic!("not cached");
    };
    assert!(stored.outcome.is_sealed() && stored.outcome.body().len() == 50);
    assert!(record.with_body(None).unwrap_err().is_unreadable());
}
