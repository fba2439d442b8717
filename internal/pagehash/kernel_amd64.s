//go:build !purego

#include "textflag.h"

// SHA-256 of four pages at once (FIPS 180-4; Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2B).
//
// Each page is a lane, with registers of its own. A lane's rounds are a chain in which every instruction waits for the one before; the processor fills
// the waits with the other lanes' if it finds these near enough in the program. So what the lanes do alternates, four rounds at a time.
//
// The eight words of a state are in two registers, as the instructions want them, from the highest word down: A B E F and C D G H.
// The words of a message, in groups of four, the first in the lowest: group 0 to 3 are the block, of each of the 12 behind them every word follows
// from words of the four groups before. Sixteen registers have no room for four groups of four lanes: the latest of each lane is in one, and
// the last four are in memory.

// Registers of lane 0 to 3: state, and the latest group of words.
#define ABEF0 X1
#define ABEF1 X2
#define ABEF2 X3
#define ABEF3 X4
#define CDGH0 X5
#define CDGH1 X6
#define CDGH2 X7
#define CDGH3 X8
#define LATEST0 X9
#define LATEST1 X10
#define LATEST2 X11
#define LATEST3 X12

// Pages of lane 0 to 3, from the block on that is next.
#define PAGE0 AX
#define PAGE1 BX
#define PAGE2 DX
#define PAGE3 DI

// What all lanes use: X0 is what the rounds take words from, by definition of the instruction.
#define WORDS X0
#define NEW X13
#define TEMP X14
#define ORDER X15
#define BLOCKS CX

// Memory of the lanes on the stack, 96 bytes each: the state before the block, 32 bytes, and four groups of words. It begins at a multiple
// of 16, as what SHA256MSG1 reads from memory has to; the stack is aligned to 8.
#define MEMORY R8
#define LANE 96
#define STATE(lane) (LANE*lane)
#define GROUP(lane, g) (LANE*lane + 32 + 16*((g)%4))

// LOAD reads group g, of 0 to 3, from the page. The words of a message are big endian.
#define LOAD(g, lane, page, latest) \
	VMOVDQU (16*g)(page), latest           \
	VPSHUFB ORDER, latest, latest          \
	VMOVDQA latest, GROUP(lane, g)(MEMORY)

// EXTEND computes group g, of 4 to 15. For each word W[t] of the group, with s0 and s1 for the small sigmas of the standard,
//
//	W[t] = W[t-16] + s0(W[t-15]) + W[t-7] + s1(W[t-2])
//
// MSG1 adds the first two; W[t-7] is in the last three words of group g-2 and the first of group g-1; MSG2 adds s1 of words
// of group g-1, and of the new one as far as it has them.
#define EXTEND(g, lane, latest) \
	VMOVDQA    GROUP(lane, g-4)(MEMORY), NEW              \
	SHA256MSG1 GROUP(lane, g-3)(MEMORY), NEW              \
	VPALIGNR   $4, GROUP(lane, g-2)(MEMORY), latest, TEMP \
	VPADDD     TEMP, NEW, NEW                             \
	SHA256MSG2 latest, NEW                                \
	VMOVDQA    NEW, latest                                \
	VMOVDQA    NEW, GROUP(lane, g)(MEMORY)

// ROUNDS does the four rounds that take group g, two at a time. Two rounds make of A B E F the new C D G H, and put the new A B E F in the place of
// the old C D G H; so the registers have changed their names after the first two, and have them back after the others.
#define ROUNDS(g, abef, cdgh, latest) \
	VPADDD      constants<>+(16*g)(SB), latest, WORDS \
	SHA256RNDS2 WORDS, abef, cdgh                     \
	VPSHUFD     $0x0e, WORDS, WORDS                   \
	SHA256RNDS2 WORDS, cdgh, abef

// The same for all lanes.

#define LOAD_ALL(g) \
	LOAD(g, 0, PAGE0, LATEST0) \
	LOAD(g, 1, PAGE1, LATEST1) \
	LOAD(g, 2, PAGE2, LATEST2) \
	LOAD(g, 3, PAGE3, LATEST3)

#define EXTEND_ALL(g) \
	EXTEND(g, 0, LATEST0) \
	EXTEND(g, 1, LATEST1) \
	EXTEND(g, 2, LATEST2) \
	EXTEND(g, 3, LATEST3)

#define ROUNDS_ALL(g) \
	ROUNDS(g, ABEF0, CDGH0, LATEST0) \
	ROUNDS(g, ABEF1, CDGH1, LATEST1) \
	ROUNDS(g, ABEF2, CDGH2, LATEST2) \
	ROUNDS(g, ABEF3, CDGH3, LATEST3)

// BEGIN takes a lane's page, and begins its state.
#define BEGIN(lane, page, abef, cdgh) \
	MOVQ    (8*lane)(SI), page     \
	VMOVDQU initial<>+0(SB), abef  \
	VMOVDQU initial<>+16(SB), cdgh

// KEEP keeps a lane's state before a block, ADD adds it to that behind the block and goes on to the next one.
#define KEEP(lane, abef, cdgh) \
	VMOVDQA abef, (STATE(lane))(MEMORY)      \
	VMOVDQA cdgh, (STATE(lane) + 16)(MEMORY)

#define ADD(lane, page, abef, cdgh) \
	VPADDD (STATE(lane))(MEMORY), abef, abef      \
	VPADDD (STATE(lane) + 16)(MEMORY), cdgh, cdgh \
	ADDQ   $64, page

// STORE puts a lane's state where digests go: from A to H, big endian. Reversed as a whole, A B C D from the highest word down is that.
#define STORE(lane, abef, cdgh) \
	VPUNPCKHQDQ abef, cdgh, TEMP         \
	VPSHUFB     ORDER, TEMP, TEMP        \
	VMOVDQU     TEMP, (32*lane)(SI)      \
	VPUNPCKLQDQ abef, cdgh, TEMP         \
	VPSHUFB     ORDER, TEMP, TEMP        \
	VMOVDQU     TEMP, (32*lane + 16)(SI)

// func sumLanes(digests *[lanes][Size]byte, pages *[lanes]*[PageSize]byte)
TEXT ·sumLanes(SB), NOSPLIT, $400-16
	LEAQ    15(SP), MEMORY
	ANDQ    $~15, MEMORY
	VMOVDQU bigEndian<>(SB), ORDER
	MOVQ    pages+8(FP), SI
	BEGIN(0, PAGE0, ABEF0, CDGH0)
	BEGIN(1, PAGE1, ABEF1, CDGH1)
	BEGIN(2, PAGE2, ABEF2, CDGH2)
	BEGIN(3, PAGE3, ABEF3, CDGH3)
	MOVQ    $65, BLOCKS                // 64 of a page, and padding

block:
	KEEP(0, ABEF0, CDGH0)
	KEEP(1, ABEF1, CDGH1)
	KEEP(2, ABEF2, CDGH2)
	KEEP(3, ABEF3, CDGH3)
	LOAD_ALL(0)
	ROUNDS_ALL(0)
	LOAD_ALL(1)
	ROUNDS_ALL(1)
	LOAD_ALL(2)
	ROUNDS_ALL(2)
	LOAD_ALL(3)
	ROUNDS_ALL(3)
	EXTEND_ALL(4)
	ROUNDS_ALL(4)
	EXTEND_ALL(5)
	ROUNDS_ALL(5)
	EXTEND_ALL(6)
	ROUNDS_ALL(6)
	EXTEND_ALL(7)
	ROUNDS_ALL(7)
	EXTEND_ALL(8)
	ROUNDS_ALL(8)
	EXTEND_ALL(9)
	ROUNDS_ALL(9)
	EXTEND_ALL(10)
	ROUNDS_ALL(10)
	EXTEND_ALL(11)
	ROUNDS_ALL(11)
	EXTEND_ALL(12)
	ROUNDS_ALL(12)
	EXTEND_ALL(13)
	ROUNDS_ALL(13)
	EXTEND_ALL(14)
	ROUNDS_ALL(14)
	EXTEND_ALL(15)
	ROUNDS_ALL(15)
	ADD(0, PAGE0, ABEF0, CDGH0)
	ADD(1, PAGE1, ABEF1, CDGH1)
	ADD(2, PAGE2, ABEF2, CDGH2)
	ADD(3, PAGE3, ABEF3, CDGH3)
	DECQ    BLOCKS
	JZ      done
	CMPQ    BLOCKS, $1
	JNE     block
	LEAQ    padding<>(SB), PAGE0
	MOVQ    PAGE0, PAGE1
	MOVQ    PAGE0, PAGE2
	MOVQ    PAGE0, PAGE3
	JMP     block

done:
	VMOVDQU reversed<>(SB), ORDER
	MOVQ    digests+0(FP), SI
	STORE(0, ABEF0, CDGH0)
	STORE(1, ABEF1, CDGH1)
	STORE(2, ABEF2, CDGH2)
	STORE(3, ABEF3, CDGH3)
	RET

// func leaf7EBX() uint32
TEXT ·leaf7EBX(SB), NOSPLIT, $0-4
	MOVL  $7, AX
	XORL  CX, CX
	CPUID
	MOVL  BX, ret+0(FP)
	RET

// Where a VPSHUFB takes its bytes from, to reverse each word, or all 16 bytes.
DATA bigEndian<>+0(SB)/8, $0x0405060700010203
DATA bigEndian<>+8(SB)/8, $0x0c0d0e0f08090a0b
GLOBL bigEndian<>(SB), RODATA|NOPTR, $16

DATA reversed<>+0(SB)/8, $0x08090a0b0c0d0e0f
DATA reversed<>+8(SB)/8, $0x0001020304050607
GLOBL reversed<>(SB), RODATA|NOPTR, $16

// The block behind 4096 bytes: a bit that is one, and their length in bits, 1 << 15, as a number of 64, big endian.
DATA padding<>+0(SB)/8, $0x80
DATA padding<>+8(SB)/8, $0
DATA padding<>+16(SB)/8, $0
DATA padding<>+24(SB)/8, $0
DATA padding<>+32(SB)/8, $0
DATA padding<>+40(SB)/8, $0
DATA padding<>+48(SB)/8, $0
DATA padding<>+56(SB)/8, $0x0080000000000000
GLOBL padding<>(SB), RODATA|NOPTR, $64

// The first state (section 5.3.3): F E B A and H G D C, the lowest word first.
DATA initial<>+0(SB)/8, $0x510e527f9b05688c
DATA initial<>+8(SB)/8, $0x6a09e667bb67ae85
DATA initial<>+16(SB)/8, $0x1f83d9ab5be0cd19
DATA initial<>+24(SB)/8, $0x3c6ef372a54ff53a
GLOBL initial<>(SB), RODATA|NOPTR, $32

// The constants of the rounds (section 4.2.2), two in each line, the first in the lower half.
DATA constants<>+0(SB)/8, $0x71374491428a2f98
DATA constants<>+8(SB)/8, $0xe9b5dba5b5c0fbcf
DATA constants<>+16(SB)/8, $0x59f111f13956c25b
DATA constants<>+24(SB)/8, $0xab1c5ed5923f82a4
DATA constants<>+32(SB)/8, $0x12835b01d807aa98
DATA constants<>+40(SB)/8, $0x550c7dc3243185be
DATA constants<>+48(SB)/8, $0x80deb1fe72be5d74
DATA constants<>+56(SB)/8, $0xc19bf1749bdc06a7
DATA constants<>+64(SB)/8, $0xefbe4786e49b69c1
DATA constants<>+72(SB)/8, $0x240ca1cc0fc19dc6
DATA constants<>+80(SB)/8, $0x4a7484aa2de92c6f
DATA constants<>+88(SB)/8, $0x76f988da5cb0a9dc
DATA constants<>+96(SB)/8, $0xa831c66d983e5152
DATA constants<>+104(SB)/8, $0xbf597fc7b00327c8
DATA constants<>+112(SB)/8, $0xd5a79147c6e00bf3
DATA constants<>+120(SB)/8, $0x1429296706ca6351
DATA constants<>+128(SB)/8, $0x2e1b213827b70a85
DATA constants<>+136(SB)/8, $0x53380d134d2c6dfc
DATA constants<>+144(SB)/8, $0x766a0abb650a7354
DATA constants<>+152(SB)/8, $0x92722c8581c2c92e
DATA constants<>+160(SB)/8, $0xa81a664ba2bfe8a1
DATA constants<>+168(SB)/8, $0xc76c51a3c24b8b70
DATA constants<>+176(SB)/8, $0xd6990624d192e819
DATA constants<>+184(SB)/8, $0x106aa070f40e3585
DATA constants<>+192(SB)/8, $0x1e376c0819a4c116
DATA constants<>+200(SB)/8, $0x34b0bcb52748774c
DATA constants<>+208(SB)/8, $0x4ed8aa4a391c0cb3
DATA constants<>+216(SB)/8, $0x682e6ff35b9cca4f
DATA constants<>+224(SB)/8, $0x78a5636f748f82ee
DATA constants<>+232(SB)/8, $0x8cc7020884c87814
DATA constants<>+240(SB)/8, $0xa4506ceb90befffa
DATA constants<>+248(SB)/8, $0xc67178f2bef9a3f7
GLOBL constants<>(SB), RODATA|NOPTR, $256
