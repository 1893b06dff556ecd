//! The legacy transform against the vectors of CIM/1, its edges and its refusals.

use super::*;
use crate::testing::unhex;

/// CIM/1 test vector `msg_L1`: message key, associated data, body.
const L1_KEY: &str = concat!(
    "f2d54f59d496016249866e803fff45416e8f6717cbd74a4f9dbfaa0f0c61ead5ef83667c40eadef7",
    "46771ef7918e970d51d191cfc395b806fb6ced494f9d8b9c",
);
const L1_AAD: &str = concat!(
    "0000000843494d312d414144000000033130300000000d626f6240622e6578616d706c6500000012",
    "616c69636540612e6578616d706c652f643100060000000347454e0000002b7031597a326e793654",
    "794e4b6749553965564672537a6d42324936784844494b686c4b363563514b706238000000024b43",
    "0000002b67395367455662713733777a4674366d6e38576d73577546396a4f2f433677524d487463",
    "654d52734a7367000000034d4944000000166564675364666a547335594e79537635773961653477",
    "00000003534551000000013300000003534944000000164d706b67426a416a4641384d6d335a366a",
    "4e746675770000000254530000000d31373935343639323437303031",
);
const L1_BODY: &str = concat!(
    "e6efa458cce6fbbc6c797a16ba79be396fd7fd9ccba756b6b9b76b0b7bb6a3b5fc8a6bf76fd2f418",
    "df8f20869bbeb926db5446f12a7ae930b1c9879241a2319a6e623235713deb0ef4d5929e3eb1bdee",
    "a655393be2f0c60b1c1a23cc4e88ca56779357edfab054c8a3bcad049bda668e7805bfe8b6a5f286",
    "a1a7d2eb6e31cccc1cd61fda805ab1446b2b9a92ac467fac14d976990e65fd45926958c48f4fc249",
    "f1e98fbefdbc26c73fcc4d0c254d6f14513b1649cf082805d58d245e9dec4cbc5a99c70f73bf744f",
    "e17eb86adcb72a3d375c5866bcac1a2a27fb8316342e3465cb3a3f0b579ea6f63c406f0784e91c96",
    "72e2adf5fa79a9a4ae44e1e2a1f905937cd04c43647e26976be2d794300e8ca89fbbb2325ee4bcd3",
    "3e2b2c7c09eae3338e36c4d68708c2d6",
);

/// CIM/1 test vector `msg_L2`.
const L2_KEY: &str = concat!(
    "b39c042bc737df5587eebc7525187ddc688f36be46a72a052a13f84c250e42591cc94c66c2bd3ff4",
    "7f0d3d12830b5b04610ecbe805b678d7",
);
const L2_AAD: &str = concat!(
    "0000000843494d312d414144000000033130300000000d626f6240622e6578616d706c6500000012",
    "616c69636540612e6578616d706c652f643100060000000347454e0000002b7031597a326e793654",
    "794e4b6749553965564672537a6d42324936784844494b686c4b363563514b706238000000024b43",
    "0000002b705352545145685172434e397276554e702b4b744d6146666e634f555a4b2b6775555a52",
    "777a704c565751000000034d49440000001667704c6f6c6c68346c5530576152584f7552722f7177",
    "00000003534551000000013300000003534944000000164d706b67426a416a4641384d6d335a366a",
    "4e746675770000000254530000000d31373935343639323437303031",
);
const L2_BODY: &str = concat!(
    "d4a7a0db3d6d269523883315e25e157472b40d488f50c51fc15906bdca75b32e8607b92774945a3d",
    "24cd93c265223899dde577e1aee00fead5c79b0b14b7e0d6f7140a7ff7f31fc4bea2a6a932c513bb",
    "b66433c78da71f5c13be1525321d495362b01c630b156cb631e5cbb92c27d8ec3c1504f101e2b5aa",
    "44715bd6372e235eb54e4bfe79ceae39b4001d44499b82f3a2e807c572e73829988216763f99943b",
    "0ff41fc875c47d2280c5c99dbf24b665506f8ba58dec7bce9e67e1a6aa14743391ffe9e647e36b06",
    "1163c03fff92a05497a45a569ed9082768220075a13712df61c36857cdc3a9ce71eb211fed529d4a",
    "c76bb700005c41fe589eab7e92efed588889c13f98ecfbf20d0cf6c03c7a32d91bf18daf30fd1b7b",
    "0d8bb546e7eb585a7437cfc6609052ed",
);

/// The entity in both vectors.
const MIME: &str = "Content-Type: text/plain; charset=utf-8\r\n\r\nhello Bob";

/// u32 length, entity, zeros to the bucket of 256.
fn plaintext() -> Vec<u8> {
    let mut text = u32::try_from(MIME.len()).unwrap().to_be_bytes().to_vec();
    text.extend_from_slice(MIME.as_bytes());
    text.resize(256, 0);
    text
}

fn l1() -> L1 {
    L1::new(&unhex(L1_KEY).try_into().unwrap())
}

fn l2() -> L2 {
    L2::new(&unhex(L2_KEY).try_into().unwrap()).unwrap()
}

#[test]
fn the_vectors_of_the_protocol_hold() {
    let (aad, body) = (unhex(L1_AAD), unhex(L1_BODY));
    assert_eq!(l1().open(&aad, &body), Ok(plaintext()));
    assert_eq!(l1().seal(&aad, &plaintext()), Ok(body));
    let (aad, body) = (unhex(L2_AAD), unhex(L2_BODY));
    assert_eq!(l2().open(&aad, &body), Ok(plaintext()));
    assert_eq!(l2().seal(&aad, &plaintext()), Ok(body));
}

#[test]
fn every_length_round_trips() {
    for len in 0..70 {
        let text: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let body = l1().seal(b"aad", &text).unwrap();
        assert_eq!(body.len(), sealed_len(len).unwrap());
        assert_eq!(l1().open(b"aad", &body), Ok(text.clone()));
        let body = l2().seal(b"aad", &text).unwrap();
        assert_eq!(l2().open(b"aad", &body), Ok(text));
    }
}

#[test]
fn every_altered_bit_fails_to_open() {
    let body = l1().seal(b"aad", b"some text").unwrap();
    for bit in 0..body.len() * 8 {
        let mut altered = body.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(l1().open(b"aad", &altered), Err(Error::Authentication), "{bit}");
    }
    assert_eq!(l1().open(b"aae", &body), Err(Error::Authentication));
}

#[test]
fn what_can_not_be_a_body_is_malformed() {
    for len in [0, 1, 31, 32, 33, 39, 41, 47] {
        assert_eq!(l1().open(b"", &vec![0; len]), Err(Error::Malformed), "{len}");
        assert_eq!(l2().open(b"", &vec![0; len]), Err(Error::Malformed), "{len}");
    }
}

#[test]
fn the_volume_of_a_key_is_bounded() {
    let text = vec![0u8; limits::LEGACY_TEXT_MAX + 1];
    assert_eq!(l2().seal(b"", &text), Err(Error::TooLong));
    let body = l2().seal(b"", &text[..limits::LEGACY_TEXT_MAX]).unwrap();
    assert_eq!(body.len(), limits::LEGACY_TEXT_MAX + BLOCK_LEN + TAG_LEN);
    assert!(l2().open(b"", &body).is_ok());
    assert_eq!(l2().open(b"", &vec![0; body.len() + BLOCK_LEN]), Err(Error::TooLong));
}

#[test]
fn bad_padding_under_a_good_tag_is_told_apart_only_after_the_tag() {
    let key = l1();
    let mut body = key.seal(b"aad", b"12345678").unwrap();
    // Drop the padding block and sign again: the last plaintext octet is then '8'.
    body.truncate(8);
    let tag = tag(&key.mac_key, b"aad", &body).unwrap();
    body.extend_from_slice(&tag);
    assert_eq!(key.open(b"aad", &body), Err(Error::Padding));
}

#[test]
fn receipts_are_tags_over_nothing() {
    let tag = l1().seal_receipt(b"aad").unwrap();
    assert_eq!(l1().open_receipt(b"aad", &tag), Ok(()));
    assert_eq!(l1().open_receipt(b"aax", &tag), Err(Error::Authentication));
    assert_eq!(l1().open(b"aad", &tag), Err(Error::Malformed));
}
