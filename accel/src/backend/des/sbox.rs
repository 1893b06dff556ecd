//! The S-boxes of DES as circuits of two-input gates, and one round made of them.
//!
//! Generated from `circuits/des-sbox.txt` by `tests/circuit.rs`, which also proves the
//! circuits; do not edit. Gates: [49, 47, 53, 36, 49, 49, 48, 41], 372 in all.

use super::bitslice::Bits;

/// Outputs that a circuit gives inverted, by S-box.
pub(super) const INVERTED: [[bool; 4]; 8] = [
    [true, true, true, false],
    [true, true, true, true],
    [true, false, true, false],
    [false, true, true, true],
    [false, false, true, false],
    [true, true, false, false],
    [false, true, false, false],
    [true, true, false, true],
];

/// One round: `l` becomes `l` xor f(`r`), up to the inversions in [`INVERTED`]. `schedule`
/// names the plane of `key`, times 32, that meets each S-box input.
#[inline(always)]
#[expect(clippy::too_many_lines, reason = "generated: eight boxes in a row")]
pub(crate) fn round<B: Bits>(
    e: B,
    l: &mut [B::W; 32],
    r: &[B::W; 32],
    key: &[B::W; 128],
    schedule: &[u16; 48],
) {
    let k = |slot: u16| key[(e.number(slot) >> 5) & 127];
    let x = [
        e.xor(r[31], k(schedule[0])),
        e.xor(r[0], k(schedule[1])),
        e.xor(r[1], k(schedule[2])),
        e.xor(r[2], k(schedule[3])),
        e.xor(r[3], k(schedule[4])),
        e.xor(r[4], k(schedule[5])),
    ];
    let y = s1(e, x);
    l[8] = e.xor(l[8], y[0]);
    l[16] = e.xor(l[16], y[1]);
    l[22] = e.xor(l[22], y[2]);
    l[30] = e.xor(l[30], y[3]);
    let x = [
        e.xor(r[3], k(schedule[6])),
        e.xor(r[4], k(schedule[7])),
        e.xor(r[5], k(schedule[8])),
        e.xor(r[6], k(schedule[9])),
        e.xor(r[7], k(schedule[10])),
        e.xor(r[8], k(schedule[11])),
    ];
    let y = s2(e, x);
    l[12] = e.xor(l[12], y[0]);
    l[27] = e.xor(l[27], y[1]);
    l[1] = e.xor(l[1], y[2]);
    l[17] = e.xor(l[17], y[3]);
    let x = [
        e.xor(r[7], k(schedule[12])),
        e.xor(r[8], k(schedule[13])),
        e.xor(r[9], k(schedule[14])),
        e.xor(r[10], k(schedule[15])),
        e.xor(r[11], k(schedule[16])),
        e.xor(r[12], k(schedule[17])),
    ];
    let y = s3(e, x);
    l[23] = e.xor(l[23], y[0]);
    l[15] = e.xor(l[15], y[1]);
    l[29] = e.xor(l[29], y[2]);
    l[5] = e.xor(l[5], y[3]);
    let x = [
        e.xor(r[11], k(schedule[18])),
        e.xor(r[12], k(schedule[19])),
        e.xor(r[13], k(schedule[20])),
        e.xor(r[14], k(schedule[21])),
        e.xor(r[15], k(schedule[22])),
        e.xor(r[16], k(schedule[23])),
    ];
    let y = s4(e, x);
    l[25] = e.xor(l[25], y[0]);
    l[19] = e.xor(l[19], y[1]);
    l[9] = e.xor(l[9], y[2]);
    l[0] = e.xor(l[0], y[3]);
    let x = [
        e.xor(r[15], k(schedule[24])),
        e.xor(r[16], k(schedule[25])),
        e.xor(r[17], k(schedule[26])),
        e.xor(r[18], k(schedule[27])),
        e.xor(r[19], k(schedule[28])),
        e.xor(r[20], k(schedule[29])),
    ];
    let y = s5(e, x);
    l[7] = e.xor(l[7], y[0]);
    l[13] = e.xor(l[13], y[1]);
    l[24] = e.xor(l[24], y[2]);
    l[2] = e.xor(l[2], y[3]);
    let x = [
        e.xor(r[19], k(schedule[30])),
        e.xor(r[20], k(schedule[31])),
        e.xor(r[21], k(schedule[32])),
        e.xor(r[22], k(schedule[33])),
        e.xor(r[23], k(schedule[34])),
        e.xor(r[24], k(schedule[35])),
    ];
    let y = s6(e, x);
    l[3] = e.xor(l[3], y[0]);
    l[28] = e.xor(l[28], y[1]);
    l[10] = e.xor(l[10], y[2]);
    l[18] = e.xor(l[18], y[3]);
    let x = [
        e.xor(r[23], k(schedule[36])),
        e.xor(r[24], k(schedule[37])),
        e.xor(r[25], k(schedule[38])),
        e.xor(r[26], k(schedule[39])),
        e.xor(r[27], k(schedule[40])),
        e.xor(r[28], k(schedule[41])),
    ];
    let y = s7(e, x);
    l[31] = e.xor(l[31], y[0]);
    l[11] = e.xor(l[11], y[1]);
    l[21] = e.xor(l[21], y[2]);
    l[6] = e.xor(l[6], y[3]);
    let x = [
        e.xor(r[27], k(schedule[42])),
        e.xor(r[28], k(schedule[43])),
        e.xor(r[29], k(schedule[44])),
        e.xor(r[30], k(schedule[45])),
        e.xor(r[31], k(schedule[46])),
        e.xor(r[0], k(schedule[47])),
    ];
    let y = s8(e, x);
    l[4] = e.xor(l[4], y[0]);
    l[26] = e.xor(l[26], y[1]);
    l[14] = e.xor(l[14], y[2]);
    l[20] = e.xor(l[20], y[3]);
}

#[inline(always)]
fn s1<B: Bits>(e: B, x: [B::W; 6]) -> [B::W; 4] {
    let [n0, n1, n2, n3, n4, n5] = x;
    let n6 = e.xor(n0, n3);
    let n7 = e.and_not(n6, n4);
    let n8 = e.xor(n1, n7);
    let n9 = e.xor(n4, n5);
    let n10 = e.and(n2, n9);
    let n11 = e.xor(n6, n10);
    let n12 = e.and_not(n3, n4);
    let n13 = e.and(n2, n12);
    let n14 = e.and_not(n11, n13);
    let n15 = e.xor(n2, n14);
    let n16 = e.and_not(n1, n15);
    let n17 = e.and_not(n0, n7);
    let n18 = e.xor(n16, n17);
    let n19 = e.xor(n1, n9);
    let n20 = e.xor(n10, n19);
    let n21 = e.or(n18, n20);
    let n22 = e.xor(n15, n21);
    let n23 = e.xor(n8, n22);
    let n24 = e.xor(n9, n23);
    let n25 = e.and(n4, n24);
    let n26 = e.and_not(n25, n2);
    let n27 = e.xor(n3, n23);
    let n28 = e.or(n7, n12);
    let n29 = e.and_not(n21, n28);
    let n30 = e.and(n24, n29);
    let n31 = e.xor(n27, n30);
    let n32 = e.or(n26, n31);
    let n33 = e.xor(n8, n32);
    let n34 = e.and(n6, n29);
    let n35 = e.xor(n25, n34);
    let n36 = e.and_not(n5, n33);
    let n37 = e.xor(n31, n36);
    let n38 = e.and_not(n37, n14);
    let n39 = e.or(n16, n38);
    let n40 = e.xor(n35, n39);
    let n41 = e.xor(n4, n40);
    let n42 = e.and_not(n29, n23);
    let n43 = e.and_not(n19, n42);
    let n44 = e.xor(n14, n43);
    let n45 = e.xor(n40, n44);
    let n46 = e.xor(n19, n32);
    let n47 = e.or(n12, n46);
    let n48 = e.and(n5, n47);
    let n49 = e.xor(n45, n48);
    let n50 = e.and_not(n40, n44);
    let n51 = e.and(n9, n50);
    let n52 = e.and_not(n49, n51);
    let n53 = e.xor(n33, n52);
    let n54 = e.xor(n19, n53);
    [n33, n41, n44, n54]
}

#[inline(always)]
fn s2<B: Bits>(e: B, x: [B::W; 6]) -> [B::W; 4] {
    let [n0, n1, n2, n3, n4, n5] = x;
    let n6 = e.xor(n0, n3);
    let n7 = e.and(n0, n4);
    let n8 = e.xor(n2, n4);
    let n9 = e.xor(n0, n8);
    let n10 = e.and_not(n9, n7);
    let n11 = e.xor(n2, n3);
    let n12 = e.and_not(n11, n7);
    let n13 = e.and_not(n1, n12);
    let n14 = e.xor(n6, n13);
    let n15 = e.and_not(n14, n4);
    let n16 = e.or(n1, n15);
    let n17 = e.xor(n10, n16);
    let n18 = e.xor(n6, n17);
    let n19 = e.and(n1, n14);
    let n20 = e.xor(n5, n19);
    let n21 = e.and_not(n4, n3);
    let n22 = e.xor(n1, n21);
    let n23 = e.xor(n8, n22);
    let n24 = e.or(n10, n23);
    let n25 = e.xor(n5, n24);
    let n26 = e.and_not(n0, n25);
    let n27 = e.xor(n20, n26);
    let n28 = e.or(n5, n27);
    let n29 = e.xor(n18, n28);
    let n30 = e.or(n2, n23);
    let n31 = e.xor(n13, n30);
    let n32 = e.and_not(n5, n31);
    let n33 = e.xor(n4, n32);
    let n34 = e.xor(n14, n33);
    let n35 = e.xor(n23, n32);
    let n36 = e.and_not(n0, n35);
    let n37 = e.xor(n29, n36);
    let n38 = e.and_not(n15, n37);
    let n39 = e.and_not(n16, n38);
    let n40 = e.or(n7, n39);
    let n41 = e.and_not(n40, n5);
    let n42 = e.xor(n22, n41);
    let n43 = e.xor(n17, n42);
    let n44 = e.and_not(n37, n4);
    let n45 = e.xor(n27, n44);
    let n46 = e.and_not(n31, n45);
    let n47 = e.or(n24, n46);
    let n48 = e.xor(n43, n47);
    let n49 = e.and_not(n29, n5);
    let n50 = e.xor(n17, n49);
    let n51 = e.or(n1, n50);
    let n52 = e.xor(n45, n51);
    [n29, n34, n48, n52]
}

#[inline(always)]
fn s3<B: Bits>(e: B, x: [B::W; 6]) -> [B::W; 4] {
    let [n0, n1, n2, n3, n4, n5] = x;
    let n6 = e.xor(n3, n5);
    let n7 = e.xor(n1, n6);
    let n8 = e.or(n3, n7);
    let n9 = e.xor(n4, n8);
    let n10 = e.and(n1, n9);
    let n11 = e.or(n4, n6);
    let n12 = e.and(n3, n11);
    let n13 = e.and_not(n12, n1);
    let n14 = e.xor(n2, n12);
    let n15 = e.xor(n9, n14);
    let n16 = e.xor(n13, n15);
    let n17 = e.xor(n6, n16);
    let n18 = e.and_not(n17, n10);
    let n19 = e.xor(n3, n18);
    let n20 = e.and(n1, n19);
    let n21 = e.xor(n0, n14);
    let n22 = e.and_not(n21, n2);
    let n23 = e.or(n1, n19);
    let n24 = e.and_not(n23, n22);
    let n25 = e.and(n15, n24);
    let n26 = e.xor(n20, n25);
    let n27 = e.and(n4, n14);
    let n28 = e.xor(n7, n27);
    let n29 = e.and_not(n28, n26);
    let n30 = e.or(n2, n29);
    let n31 = e.and_not(n4, n21);
    let n32 = e.and_not(n30, n31);
    let n33 = e.xor(n26, n32);
    let n34 = e.and_not(n33, n9);
    let n35 = e.xor(n21, n29);
    let n36 = e.and_not(n5, n28);
    let n37 = e.and_not(n24, n36);
    let n38 = e.xor(n9, n37);
    let n39 = e.and_not(n38, n35);
    let n40 = e.xor(n23, n39);
    let n41 = e.and_not(n9, n21);
    let n42 = e.and_not(n1, n41);
    let n43 = e.and_not(n40, n42);
    let n44 = e.xor(n34, n43);
    let n45 = e.or(n0, n28);
    let n46 = e.and(n0, n19);
    let n47 = e.and_not(n45, n46);
    let n48 = e.and_not(n47, n21);
    let n49 = e.and(n10, n45);
    let n50 = e.and_not(n35, n13);
    let n51 = e.xor(n1, n50);
    let n52 = e.or(n0, n40);
    let n53 = e.xor(n51, n52);
    let n54 = e.and_not(n22, n20);
    let n55 = e.and_not(n53, n54);
    let n56 = e.xor(n47, n55);
    let n57 = e.and_not(n56, n49);
    let n58 = e.xor(n48, n57);
    [n44, n35, n58, n47]
}

#[inline(always)]
fn s4<B: Bits>(e: B, x: [B::W; 6]) -> [B::W; 4] {
    let [n0, n1, n2, n3, n4, n5] = x;
    let n6 = e.xor(n2, n4);
    let n7 = e.and_not(n3, n6);
    let n8 = e.xor(n1, n3);
    let n9 = e.xor(n7, n8);
    let n10 = e.and_not(n4, n2);
    let n11 = e.xor(n9, n10);
    let n12 = e.and_not(n0, n11);
    let n13 = e.or(n8, n12);
    let n14 = e.and_not(n13, n7);
    let n15 = e.xor(n0, n6);
    let n16 = e.xor(n14, n15);
    let n17 = e.xor(n3, n16);
    let n18 = e.or(n8, n17);
    let n19 = e.and_not(n13, n15);
    let n20 = e.xor(n12, n19);
    let n21 = e.xor(n4, n20);
    let n22 = e.or(n7, n21);
    let n23 = e.and(n18, n22);
    let n24 = e.and_not(n2, n3);
    let n25 = e.or(n11, n20);
    let n26 = e.and_not(n25, n17);
    let n27 = e.xor(n21, n26);
    let n28 = e.xor(n24, n27);
    let n29 = e.xor(n5, n28);
    let n30 = e.and_not(n29, n28);
    let n31 = e.xor(n23, n30);
    let n32 = e.xor(n14, n31);
    let n33 = e.xor(n29, n32);
    let n34 = e.and(n3, n9);
    let n35 = e.xor(n22, n34);
    let n36 = e.and_not(n34, n4);
    let n37 = e.and_not(n35, n5);
    let n38 = e.xor(n16, n37);
    let n39 = e.xor(n36, n38);
    let n40 = e.xor(n5, n39);
    let n41 = e.xor(n35, n40);
    [n32, n33, n41, n39]
}

#[inline(always)]
fn s5<B: Bits>(e: B, x: [B::W; 6]) -> [B::W; 4] {
    let [n0, n1, n2, n3, n4, n5] = x;
    let n6 = e.and_not(n1, n4);
    let n7 = e.and_not(n0, n2);
    let n8 = e.and_not(n7, n3);
    let n9 = e.xor(n2, n8);
    let n10 = e.xor(n2, n5);
    let n11 = e.and_not(n9, n10);
    let n12 = e.or(n6, n11);
    let n13 = e.xor(n4, n12);
    let n14 = e.xor(n1, n13);
    let n15 = e.xor(n0, n4);
    let n16 = e.xor(n11, n15);
    let n17 = e.xor(n10, n13);
    let n18 = e.and_not(n9, n12);
    let n19 = e.and_not(n3, n18);
    let n20 = e.and_not(n19, n1);
    let n21 = e.xor(n14, n20);
    let n22 = e.and(n17, n21);
    let n23 = e.xor(n16, n22);
    let n24 = e.and(n14, n23);
    let n25 = e.xor(n6, n23);
    let n26 = e.and_not(n25, n0);
    let n27 = e.xor(n24, n26);
    let n28 = e.or(n7, n15);
    let n29 = e.xor(n10, n28);
    let n30 = e.xor(n7, n28);
    let n31 = e.and_not(n11, n30);
    let n32 = e.xor(n27, n31);
    let n33 = e.or(n3, n32);
    let n34 = e.xor(n29, n33);
    let n35 = e.and_not(n18, n34);
    let n36 = e.or(n9, n30);
    let n37 = e.xor(n19, n26);
    let n38 = e.or(n17, n37);
    let n39 = e.and(n36, n38);
    let n40 = e.xor(n1, n34);
    let n41 = e.and_not(n40, n39);
    let n42 = e.xor(n3, n15);
    let n43 = e.xor(n41, n42);
    let n44 = e.or(n35, n43);
    let n45 = e.xor(n27, n44);
    let n46 = e.xor(n14, n37);
    let n47 = e.or(n2, n34);
    let n48 = e.xor(n1, n28);
    let n49 = e.and(n47, n48);
    let n50 = e.and_not(n45, n49);
    let n51 = e.and(n24, n40);
    let n52 = e.xor(n34, n46);
    let n53 = e.and_not(n52, n51);
    let n54 = e.xor(n50, n53);
    [n45, n40, n46, n54]
}

#[inline(always)]
fn s6<B: Bits>(e: B, x: [B::W; 6]) -> [B::W; 4] {
    let [n0, n1, n2, n3, n4, n5] = x;
    let n6 = e.and(n0, n4);
    let n7 = e.xor(n1, n6);
    let n8 = e.and_not(n2, n7);
    let n9 = e.or(n3, n5);
    let n10 = e.and(n1, n9);
    let n11 = e.and_not(n4, n10);
    let n12 = e.and_not(n2, n11);
    let n13 = e.and_not(n10, n12);
    let n14 = e.and_not(n5, n13);
    let n15 = e.and_not(n0, n14);
    let n16 = e.xor(n4, n15);
    let n17 = e.xor(n8, n16);
    let n18 = e.and(n2, n17);
    let n19 = e.xor(n7, n18);
    let n20 = e.or(n0, n17);
    let n21 = e.and(n19, n20);
    let n22 = e.xor(n4, n21);
    let n23 = e.and(n5, n22);
    let n24 = e.and(n20, n23);
    let n25 = e.or(n19, n24);
    let n26 = e.xor(n3, n23);
    let n27 = e.xor(n2, n26);
    let n28 = e.and(n5, n27);
    let n29 = e.xor(n25, n28);
    let n30 = e.and_not(n3, n6);
    let n31 = e.xor(n19, n26);
    let n32 = e.and_not(n31, n30);
    let n33 = e.xor(n5, n32);
    let n34 = e.and_not(n33, n0);
    let n35 = e.xor(n27, n34);
    let n36 = e.xor(n12, n13);
    let n37 = e.and_not(n3, n31);
    let n38 = e.xor(n17, n37);
    let n39 = e.and(n36, n38);
    let n40 = e.xor(n35, n39);
    let n41 = e.xor(n8, n33);
    let n42 = e.and_not(n20, n41);
    let n43 = e.xor(n35, n42);
    let n44 = e.and(n40, n43);
    let n45 = e.and_not(n14, n44);
    let n46 = e.xor(n12, n45);
    let n47 = e.xor(n11, n46);
    let n48 = e.and_not(n47, n3);
    let n49 = e.xor(n29, n48);
    let n50 = e.xor(n19, n40);
    let n51 = e.xor(n42, n46);
    let n52 = e.or(n50, n51);
    let n53 = e.and_not(n16, n52);
    let n54 = e.xor(n43, n53);
    [n49, n54, n50, n38]
}

#[inline(always)]
fn s7<B: Bits>(e: B, x: [B::W; 6]) -> [B::W; 4] {
    let [n0, n1, n2, n3, n4, n5] = x;
    let n6 = e.xor(n0, n4);
    let n7 = e.xor(n3, n6);
    let n8 = e.xor(n1, n7);
    let n9 = e.and_not(n3, n4);
    let n10 = e.xor(n1, n9);
    let n11 = e.and_not(n8, n10);
    let n12 = e.xor(n2, n7);
    let n13 = e.and_not(n10, n0);
    let n14 = e.or(n12, n13);
    let n15 = e.and_not(n14, n5);
    let n16 = e.xor(n11, n15);
    let n17 = e.xor(n2, n11);
    let n18 = e.or(n0, n17);
    let n19 = e.xor(n5, n18);
    let n20 = e.and_not(n19, n16);
    let n21 = e.xor(n8, n20);
    let n22 = e.xor(n7, n16);
    let n23 = e.or(n5, n10);
    let n24 = e.and_not(n23, n22);
    let n25 = e.xor(n14, n24);
    let n26 = e.xor(n17, n25);
    let n27 = e.xor(n4, n26);
    let n28 = e.and(n3, n27);
    let n29 = e.xor(n12, n28);
    let n30 = e.and(n5, n29);
    let n31 = e.or(n27, n30);
    let n32 = e.xor(n21, n31);
    let n33 = e.xor(n7, n30);
    let n34 = e.xor(n18, n33);
    let n35 = e.or(n2, n34);
    let n36 = e.and_not(n35, n3);
    let n37 = e.xor(n32, n36);
    let n38 = e.or(n1, n37);
    let n39 = e.xor(n21, n38);
    let n40 = e.and(n11, n14);
    let n41 = e.xor(n32, n40);
    let n42 = e.and(n3, n41);
    let n43 = e.and_not(n42, n15);
    let n44 = e.and_not(n39, n5);
    let n45 = e.or(n1, n4);
    let n46 = e.xor(n4, n21);
    let n47 = e.and(n0, n46);
    let n48 = e.and_not(n45, n47);
    let n49 = e.xor(n34, n48);
    let n50 = e.xor(n44, n49);
    let n51 = e.and_not(n50, n20);
    let n52 = e.xor(n43, n51);
    let n53 = e.xor(n6, n52);
    [n39, n53, n49, n25]
}

#[inline(always)]
fn s8<B: Bits>(e: B, x: [B::W; 6]) -> [B::W; 4] {
    let [n0, n1, n2, n3, n4, n5] = x;
    let n6 = e.or(n0, n4);
    let n7 = e.and_not(n0, n5);
    let n8 = e.xor(n0, n2);
    let n9 = e.and(n7, n8);
    let n10 = e.and_not(n6, n7);
    let n11 = e.or(n3, n10);
    let n12 = e.xor(n8, n11);
    let n13 = e.and_not(n5, n3);
    let n14 = e.and_not(n13, n12);
    let n15 = e.and_not(n1, n14);
    let n16 = e.and_not(n12, n15);
    let n17 = e.and_not(n16, n0);
    let n18 = e.xor(n4, n17);
    let n19 = e.and_not(n7, n16);
    let n20 = e.or(n12, n18);
    let n21 = e.xor(n3, n20);
    let n22 = e.or(n19, n21);
    let n23 = e.xor(n18, n22);
    let n24 = e.xor(n5, n23);
    let n25 = e.xor(n9, n24);
    let n26 = e.xor(n1, n25);
    let n27 = e.and_not(n6, n26);
    let n28 = e.and(n16, n24);
    let n29 = e.or(n5, n28);
    let n30 = e.xor(n27, n29);
    let n31 = e.and_not(n30, n1);
    let n32 = e.xor(n26, n31);
    let n33 = e.or(n23, n32);
    let n34 = e.and(n4, n33);
    let n35 = e.xor(n12, n34);
    let n36 = e.xor(n31, n35);
    let n37 = e.xor(n24, n35);
    let n38 = e.and(n0, n37);
    let n39 = e.xor(n15, n38);
    let n40 = e.xor(n22, n39);
    let n41 = e.or(n7, n36);
    let n42 = e.or(n13, n18);
    let n43 = e.xor(n38, n42);
    let n44 = e.and_not(n40, n43);
    let n45 = e.xor(n25, n44);
    let n46 = e.xor(n41, n45);
    [n36, n26, n40, n46]
}
