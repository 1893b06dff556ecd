//! The rows of the table: every command and reply of stage 1 (SPEC.md §3, §17).

use super::{Answered, Authority, Constraint, Kind, Row, Rule, Shape, Slot, State};
use crate::code::Code;
use crate::limits::{INVITATION_OCTETS_MAX, ROSTER_BLOB_OCTETS_MAX};

const fn need(name: &'static str, kind: Kind) -> Rule {
    Rule { name, kind, is_required: true }
}

const fn may(name: &'static str, kind: Kind) -> Rule {
    Rule { name, kind, is_required: false }
}

const PROVEN: &[State] = &[State::Proven];
const ANY: &[State] = &State::ALL;

const SUB: Kind = Kind::Word(&["none", "to", "from", "both"]);
const ASK: Kind = Kind::Word(&["out", "in", "both"]);
const PRESENCE: Kind = Kind::Word(&["available", "away", "busy", "dnd", "offline"]);
const ALTERNATIVES: Kind = Kind::Words(&["SMS", "EMAIL"]);
const BLOB: Kind = Kind::Base64(ROSTER_BLOB_OCTETS_MAX);

/// A command that a proven client sends to its relay and that carries no slots.
const OWN: Row = Row {
    code: Code::PING,
    name: "",
    meaning: "",
    from_client: true,
    from_relay: false,
    states: PROVEN,
    to: Shape::NONE,
    from: Shape::DEVICE,
    parameters: &[],
    constraints: &[],
    body: Slot::Absent,
    signature: Slot::Absent,
    authority: Authority::None,
    answered: Answered::Always,
    replies: &[250],
};

/// A command that relays pass on from one person's device to another person.
const PASSED: Row = Row { from_relay: true, to: Shape::ACCOUNT, replies: PASSED_REPLIES, ..OWN };

const PASSED_REPLIES: &[u16] = &[250, 252, 452, 453, 550, 552, 554, 555, 558];
const SIGNED_REPLIES: &[u16] = &[250, 252, 452, 453, 550, 552, 553, 554, 555, 558];
const MESSAGE_REPLIES: &[u16] = &[250, 252, 350, 452, 453, 550, 552, 553, 554, 555, 558];

/// A sealed line of a session.
const SEALED: Row = Row {
    constraints: &[Constraint::WithSignature("KC")],
    body: Slot::Required,
    signature: Slot::Optional,
    authority: Authority::SignedSession,
    replies: MESSAGE_REPLIES,
    ..PASSED
};

const SEALED_RULES: &[Rule] = &[
    need("SID", Kind::Id),
    need("GEN", Kind::Hash),
    need("SEQ", Kind::POSITIVE),
    need("TS", Kind::Time),
    need("MID", Kind::Id),
    may("KC", Kind::Hash),
    may("PREV", Kind::NUMBER),
    may("RE", Kind::Id),
    may("PART", Kind::Part),
    may("TTL", Kind::LIFE),
];

const ABOUT_RULES: &[Rule] = &[
    need("RE", Kind::Id),
    need("SID", Kind::Id),
    need("GEN", Kind::Hash),
    need("SEQ", Kind::POSITIVE),
    need("TS", Kind::Time),
    need("MID", Kind::Id),
    may("KC", Kind::Hash),
    may("PREV", Kind::NUMBER),
    may("PART", Kind::Part),
    may("TTL", Kind::LIFE),
];

const RECEIPT_RULES: &[Rule] = &[
    need("RE", Kind::MessageIds),
    need("SID", Kind::Id),
    need("GEN", Kind::Hash),
    need("SEQ", Kind::POSITIVE),
    need("TS", Kind::Time),
    need("MID", Kind::Id),
    may("KC", Kind::Hash),
    may("PREV", Kind::NUMBER),
];

const OFFER_RULES: &[Rule] = &[
    need("SID", Kind::Id),
    need("GEN", Kind::Hash),
    need("SUITE", Kind::Suite),
    need("WITH", Kind::Accounts),
    need("MEM", Kind::Hash),
    need("SIGNED", Kind::Flag),
    need("KR", Kind::Hash),
    need("KF", Kind::Hash),
    need("SPK", Kind::NUMBER),
    may("OPK", Kind::NUMBER),
    may("NOGW", Kind::Flag),
    need("TS", Kind::Time),
    need("MID", Kind::Id),
];

const REFRESH_RULES: &[Rule] = &[
    need("SID", Kind::Id),
    need("PGEN", Kind::Hash),
    need("GEN", Kind::Hash),
    need("SUITE", Kind::Suite),
    need("WITH", Kind::Accounts),
    need("MEM", Kind::Hash),
    need("SIGNED", Kind::Flag),
    need("KR", Kind::Hash),
    need("KF", Kind::Hash),
    may("NK", Kind::Id),
    may("SPK", Kind::NUMBER),
    may("OPK", Kind::NUMBER),
    may("NOGW", Kind::Flag),
    need("TS", Kind::Time),
    need("MID", Kind::Id),
];

/// A session line from device to device, always signed.
const SESSION: Row = Row {
    to: Shape::DEVICE,
    signature: Slot::Required,
    authority: Authority::Device,
    replies: SIGNED_REPLIES,
    ..PASSED
};

/// A subscription line between two people; the relay's word, so neither signed nor sealed.
const SUBSCRIPTION: Row = Row {
    parameters: &[may("TS", Kind::Time), may("MID", Kind::Id)],
    replies: &[250, 252, 452, 453, 550],
    ..PASSED
};

/// Every command of stage 1, by rising code.
pub const ROWS: &[Row] = &[
    Row {
        code: Code::HELLO,
        name: "HELLO",
        meaning: "claims an address; offers versions and capabilities",
        states: &[State::Connected],
        parameters: &[need("VER", Kind::Versions), may("CAP", Kind::Capabilities)],
        ..OWN
    },
    Row {
        code: Code::IDENTITY,
        name: "IDENTITY",
        meaning: "passes the device's public key",
        states: &[State::Greeted],
        parameters: &[need("ALG", Kind::Algorithm)],
        body: Slot::Required,
        replies: &[334, 453],
        ..OWN
    },
    Row {
        code: Code::PROOF,
        name: "PROOF",
        meaning: "proves possession of that key on this link",
        states: &[State::Identified],
        signature: Slot::Required,
        authority: Authority::Proof,
        replies: &[250, 453, 535],
        ..OWN
    },
    Row {
        code: Code::RESUME,
        name: "RESUME",
        meaning: "replays the queue above H-Q and what was kept",
        from: Shape::NONE,
        parameters: &[need("H-Q", Kind::NUMBER)],
        ..OWN
    },
    Row {
        code: Code::ACKNOWLEDGE,
        name: "ACKNOWLEDGE",
        meaning: "frees the queue up to H-Q, save KEEP",
        from: Shape::NONE,
        parameters: &[need("H-Q", Kind::NUMBER), may("KEEP", Kind::Numbers)],
        answered: Answered::IfAsked,
        ..OWN
    },
    Row {
        code: Code::PING,
        name: "PING",
        meaning: "shows that the link lives",
        from_relay: true,
        states: ANY,
        from: Shape::NONE,
        ..OWN
    },
    Row {
        code: Code::QUIT,
        name: "QUIT",
        meaning: "ends the link",
        states: ANY,
        from: Shape::NONE,
        replies: &[221],
        ..OWN
    },
    Row {
        code: Code::MESSAGE,
        name: "MESSAGE",
        meaning: "a message",
        parameters: SEALED_RULES,
        ..SEALED
    },
    Row {
        code: Code::DELIVERED,
        name: "DELIVERED",
        meaning: "messages arrived at this device",
        parameters: RECEIPT_RULES,
        replies: SIGNED_REPLIES,
        ..SEALED
    },
    Row {
        code: Code::READ,
        name: "READ",
        meaning: "messages were read",
        parameters: RECEIPT_RULES,
        replies: SIGNED_REPLIES,
        ..SEALED
    },
    Row {
        code: Code::EDIT,
        name: "EDIT",
        meaning: "another text for one's own message",
        parameters: ABOUT_RULES,
        ..SEALED
    },
    Row {
        code: Code::RETRACT,
        name: "RETRACT",
        meaning: "takes one's own message back",
        parameters: ABOUT_RULES,
        ..SEALED
    },
    Row {
        code: Code::REACTION,
        name: "REACTION",
        meaning: "a reaction to a message",
        parameters: ABOUT_RULES,
        ..SEALED
    },
    Row {
        code: Code::TYPING,
        name: "TYPING",
        meaning: "somebody is typing a message",
        parameters: &[need("TTL", Kind::LIFE)],
        answered: Answered::IfAsked,
        replies: &[250, 252, 453],
        ..PASSED
    },
    Row {
        code: Code::TYPING_STOPPED,
        name: "TYPING-STOPPED",
        meaning: "somebody stopped typing",
        answered: Answered::IfAsked,
        replies: &[250, 252, 453],
        ..PASSED
    },
    Row {
        code: Code::PRESENCE_SET,
        name: "PRESENCE-SET",
        meaning: "says how one wants to be met",
        parameters: &[need("STATE", PRESENCE), may("UNTIL", Kind::Time), may("ALT", ALTERNATIVES)],
        ..OWN
    },
    Row {
        code: Code::PRESENCE,
        name: "PRESENCE",
        meaning: "tells how a contact wants to be met",
        from_client: false,
        from_relay: true,
        to: Shape::DEVICE_OR_NONE,
        from: Shape::ACCOUNT,
        parameters: &[need("STATE", PRESENCE), may("UNTIL", Kind::Time), may("ALT", ALTERNATIVES)],
        answered: Answered::Never,
        replies: &[],
        ..OWN
    },
    Row {
        code: Code::PRESENCE_QUERY,
        name: "PRESENCE-QUERY",
        meaning: "asks how somebody wants to be met",
        to: Shape::ACCOUNT,
        replies: &[251, 252, 453],
        ..OWN
    },
    Row {
        code: Code::CHOICE,
        name: "CHOICE",
        meaning: "chooses after 350",
        to: Shape::ACCOUNT,
        parameters: &[
            need("RE", Kind::Id),
            need("VIA", Kind::Word(&["SMS", "EMAIL", "HOLD", "URGENT"])),
        ],
        replies: &[250, 252, 350, 452, 453, 504, 550, 558],
        ..OWN
    },
    Row {
        code: Code::BOUNCE,
        name: "BOUNCE",
        meaning: "a line did not arrive",
        from_client: false,
        from_relay: true,
        to: Shape::DEVICE,
        from: Shape::DOMAIN,
        parameters: &[need("RE", Kind::Id), need("CODE", Kind::ReplyCode), need("TS", Kind::Time)],
        signature: Slot::Required,
        authority: Authority::Log,
        answered: Answered::Never,
        replies: &[],
        ..OWN
    },
    Row {
        code: Code::REGISTER,
        name: "REGISTER",
        meaning: "opens an account with its first record",
        states: &[State::Registering],
        from: Shape::ACCOUNT,
        parameters: &[
            may("INVITE", Kind::Text(INVITATION_OCTETS_MAX)),
            may("POW", Kind::Text(INVITATION_OCTETS_MAX)),
        ],
        constraints: &[Constraint::OneOf(&["INVITE", "POW"])],
        body: Slot::Required,
        replies: &[250, 451, 452, 453, 455, 504, 535, 551, 553, 558],
        ..OWN
    },
    Row {
        code: Code::RECORD,
        name: "RECORD",
        meaning: "publishes or rotates a record",
        from: Shape::ACCOUNT,
        parameters: &[
            need("VER", Kind::POSITIVE),
            need("PREV", Kind::Previous),
            need("IDA", Kind::Algorithm),
            need("SUITES", Kind::Suites),
            need("NB", Kind::Time),
            need("NA", Kind::Time),
            need("ROLE", Kind::Role),
            may("SIGNED", Kind::Flag),
            may("REC", Kind::Hash),
            may("PSIG", Kind::Signature),
            may("RSIG", Kind::Signature),
        ],
        body: Slot::Required,
        signature: Slot::Required,
        authority: Authority::Identity,
        replies: &[250, 452, 453, 455, 504, 553, 558],
        ..OWN
    },
    Row {
        code: Code::REVOKE,
        name: "REVOKE",
        meaning: "revokes a device or the identity key",
        from_relay: true,
        from: Shape::ACCOUNT,
        parameters: &[
            need("KR", Kind::Hash),
            may("DEV", Kind::Device),
            may("BY", Kind::Word(&["domain"])),
            need("TS", Kind::Time),
            need("MID", Kind::Id),
        ],
        body: Slot::Optional,
        signature: Slot::Required,
        authority: Authority::Revoker,
        replies: &[250, 452, 453, 455, 553, 554, 558],
        ..OWN
    },
    Row {
        code: Code::RECORD_FETCH,
        name: "RECORD-FETCH",
        meaning: "fetches the record of an account or domain",
        to: Shape::RECORD,
        parameters: &[may("KR", Kind::Hash)],
        replies: &[251, 453, 550, 551],
        ..OWN
    },
    Row {
        code: Code::PREKEYS,
        name: "PREKEYS",
        meaning: "publishes prekeys",
        parameters: &[
            may("SPK", Kind::NUMBER),
            may("OPK", Kind::NUMBER),
            need("TS", Kind::Time),
            need("NA", Kind::Time),
        ],
        constraints: &[Constraint::OneOf(&["SPK", "OPK"])],
        body: Slot::Required,
        signature: Slot::Required,
        authority: Authority::Device,
        replies: &[250, 452, 453, 455, 553, 558],
        ..OWN
    },
    Row {
        code: Code::PREKEYS_TAKE,
        name: "PREKEYS-TAKE",
        meaning: "takes prekeys of an account's devices",
        to: Shape::ACCOUNT,
        replies: &[251, 452, 453, 550, 551],
        ..OWN
    },
    Row {
        code: Code::PREKEYS_LOW,
        name: "PREKEYS-LOW",
        meaning: "one-time prekeys run out",
        from_client: false,
        from_relay: true,
        to: Shape::DEVICE_OR_NONE,
        from: Shape::NONE,
        parameters: &[need("COUNT", Kind::NUMBER)],
        answered: Answered::Never,
        replies: &[],
        ..OWN
    },
    Row {
        code: Code::ROSTER_GET,
        name: "ROSTER-GET",
        meaning: "fetches the roster if it is newer than VER",
        parameters: &[may("VER", Kind::NUMBER)],
        replies: &[250, 251],
        ..OWN
    },
    Row {
        code: Code::ROSTER_SET,
        name: "ROSTER-SET",
        meaning: "adds, changes or removes a contact",
        to: Shape::ACCOUNT,
        parameters: &[
            may("VER", Kind::NUMBER),
            may("DEL", Kind::Flag),
            may("URGENT", Kind::Flag),
            may("BLOB", BLOB),
        ],
        replies: &[250, 452, 453, 455],
        ..OWN
    },
    Row {
        code: Code::ROSTER_PUSH,
        name: "ROSTER-PUSH",
        meaning: "tells that a contact changed",
        from_client: false,
        from_relay: true,
        to: Shape::DEVICE_OR_NONE,
        from: Shape::NONE,
        parameters: &[
            need("WHO", Kind::Account),
            need("VER", Kind::NUMBER),
            need("SUB", SUB),
            may("ASK", ASK),
            may("BLOCK", Kind::Flag),
            may("DEL", Kind::Flag),
            may("URGENT", Kind::Flag),
            may("BLOB", BLOB),
        ],
        answered: Answered::Never,
        replies: &[],
        ..OWN
    },
    Row {
        code: Code::SUBSCRIBE,
        name: "SUBSCRIBE",
        meaning: "asks to see somebody's presence and to be approved",
        ..SUBSCRIPTION
    },
    Row { code: Code::APPROVE, name: "APPROVE", meaning: "approves somebody", ..SUBSCRIPTION },
    Row {
        code: Code::DENY,
        name: "DENY",
        meaning: "denies or withdraws the approval",
        ..SUBSCRIPTION
    },
    Row {
        code: Code::BLOCK,
        name: "BLOCK",
        meaning: "blocks somebody, or no longer with OFF=1",
        to: Shape::ACCOUNT,
        parameters: &[may("OFF", Kind::Flag)],
        replies: &[250, 452, 453],
        ..OWN
    },
    Row {
        code: Code::OFFER,
        name: "OFFER",
        meaning: "offers a session key to one device",
        parameters: OFFER_RULES,
        body: Slot::Required,
        ..SESSION
    },
    Row {
        code: Code::ACCEPT,
        name: "ACCEPT",
        meaning: "accepts a session key",
        parameters: &[
            need("SID", Kind::Id),
            need("GEN", Kind::Hash),
            may("NK", Kind::Id),
            need("TS", Kind::Time),
            need("MID", Kind::Id),
        ],
        constraints: &[Constraint::WithBody("NK")],
        body: Slot::Optional,
        ..SESSION
    },
    Row {
        code: Code::REFRESH,
        name: "REFRESH",
        meaning: "offers the next session key to one device",
        parameters: REFRESH_RULES,
        constraints: &[Constraint::OneOf(&["NK", "SPK"]), Constraint::Needs("OPK", "SPK")],
        body: Slot::Required,
        ..SESSION
    },
    Row {
        code: Code::CLOSE,
        name: "CLOSE",
        meaning: "closes a session, or refuses a session key with CODE",
        parameters: &[
            need("SID", Kind::Id),
            may("GEN", Kind::Hash),
            may("CODE", Kind::ReplyCode),
            may("KR", Kind::Hash),
            need("TS", Kind::Time),
            need("MID", Kind::Id),
        ],
        constraints: &[Constraint::Needs("CODE", "GEN")],
        ..SESSION
    },
    Row {
        code: Code::FILE_OFFER,
        name: "FILE-OFFER",
        meaning: "offers a file",
        parameters: &[
            need("FID", Kind::Id),
            need("SIZE", Kind::NUMBER),
            need("CHUNK", Kind::CHUNK_SIZE),
            need("ROOT", Kind::Hash),
            need("SID", Kind::Id),
            need("GEN", Kind::Hash),
            need("SEQ", Kind::POSITIVE),
            need("TS", Kind::Time),
            need("MID", Kind::Id),
            need("KC", Kind::Hash),
            may("PREV", Kind::NUMBER),
        ],
        signature: Slot::Required,
        authority: Authority::Device,
        replies: &[250, 252, 350, 354, 452, 453, 550, 552, 553, 554, 555, 558],
        ..SEALED
    },
    Row {
        code: Code::FILE_ACCEPT,
        name: "FILE-ACCEPT",
        meaning: "accepts or resumes a file",
        to: Shape::DEVICE,
        parameters: &[
            need("FID", Kind::Id),
            need("FROM-CHUNK", Kind::CHUNK),
            may("TO-CHUNK", Kind::CHUNK),
        ],
        ..PASSED
    },
    Row {
        code: Code::FILE_CHUNK,
        name: "FILE-CHUNK",
        meaning: "one sealed chunk",
        to: Shape::PERSON,
        parameters: &[need("FID", Kind::Id), need("N", Kind::CHUNK)],
        body: Slot::Required,
        answered: Answered::IfAsked,
        ..PASSED
    },
    Row {
        code: Code::FILE_WINDOW,
        name: "FILE-WINDOW",
        meaning: "grants the chunks below TO-CHUNK",
        to: Shape::DEVICE,
        from: Shape::DEVICE_OR_DOMAIN,
        parameters: &[need("FID", Kind::Id), need("TO-CHUNK", Kind::CHUNK)],
        answered: Answered::IfAsked,
        ..PASSED
    },
    Row {
        code: Code::FILE_FINISH,
        name: "FILE-FINISH",
        meaning: "all chunks were sent; signs root and size",
        to: Shape::PERSON,
        parameters: &[
            need("FID", Kind::Id),
            need("ROOT", Kind::Hash),
            need("SIZE", Kind::NUMBER),
            need("TS", Kind::Time),
            need("MID", Kind::Id),
        ],
        ..SESSION
    },
    Row {
        code: Code::FILE_CANCEL,
        name: "FILE-CANCEL",
        meaning: "gives a file up",
        to: Shape::PERSON,
        from: Shape::DEVICE_OR_DOMAIN,
        parameters: &[need("FID", Kind::Id), may("CODE", Kind::ReplyCode)],
        ..PASSED
    },
    Row {
        code: Code::FILE_VERDICT,
        name: "FILE-VERDICT",
        meaning: "the receiver's verdict on a file",
        parameters: &[
            need("FID", Kind::Id),
            need("CODE", Kind::ReplyCode),
            need("TS", Kind::Time),
            need("MID", Kind::Id),
        ],
        ..SESSION
    },
    Row {
        code: Code::POLICY,
        name: "POLICY",
        meaning: "fetches the domain's signed policy and record",
        states: &[State::Greeted, State::Proven],
        from: Shape::DEVICE_OR_NONE,
        replies: &[251, 453],
        ..OWN
    },
];

/// Codes that may answer any command.
pub const COMMON_REPLIES: &[u16] = &[421, 450, 451, 500, 501, 503, 510, 521, 530, 556, 557];

/// Every reply: code, meaning, and the parameters that it carries besides H-ID.
pub const REPLIES: &[(u16, &str, &str)] = &[
    (220, "greeting", ""),
    (221, "bye", ""),
    (250, "done", "`CAP=` `VER=` (010), `H-Q=` (012), `COUNT=` (611), `VER=` (630, 631)"),
    (
        251,
        "data",
        "`REC= [REV=]` (610), `DEV= PRE= [ONE=]` (612), `VER= WHO= SUB= [ASK=] [BLOCK=] [URGENT=] \
         [BLOB=]` (630), `STATE= [UNTIL=] [ALT=]` (122), `POL= REC=` (920)",
    ),
    (252, "taken: queued, or nothing told", ""),
    (253, "passed to another domain", ""),
    (334, "challenge", "`NONCE=`"),
    (350, "recipient busy: choose", "`[ALT=] [UNTIL=]`"),
    (354, "send chunks", "`TO-CHUNK=`"),
    (421, "closing the link", ""),
    (450, "try later", "`[RETRY=]` in seconds, `[FROM-CHUNK=]` (802, 804)"),
    (451, "token or local fault", "`[RETRY=]` in seconds"),
    (452, "quota", ""),
    (453, "slow down", "`RETRY=` in seconds"),
    (455, "stale version or epoch", "`[KR=]` (601), `[VER=]` (631)"),
    (456, "prekey gone", ""),
    (500, "syntax", ""),
    (501, "bad parameter", ""),
    (502, "unknown code", ""),
    (503, "not now, or not from this side", ""),
    (504, "suite or way refused", ""),
    (510, "bad address", ""),
    (521, "policy", ""),
    (530, "log in first", ""),
    (535, "proof failed", ""),
    (550, "no such user", ""),
    (551, "moved, or taken", "`[NEW= MV=]`"),
    (552, "too large", ""),
    (553, "bad signature or commitment", ""),
    (554, "message id reused", ""),
    (555, "record changed", "`KR=`"),
    (556, "line too long", ""),
    (557, "loop", ""),
    (558, "expired", ""),
];
