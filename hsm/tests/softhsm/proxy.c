/* A PKCS#11 module that stands in front of another one and misbehaves on demand.
 *
 * Environment: FAULT_MODULE the real module, FAULT_CONTROL a control file. Each line is
 *     FUNCTION FAULT [NUMBER [COUNT]]      e.g.  C_Sign delay 5000    C_Login fail 0x30 2
 * delay N    sleep N microseconds first
 * fail N     return N instead of calling (the next COUNT times; without COUNT always)
 * hang       do not return until the control file changes
 * crash      abort
 * flip       change one bit of the output (signature, CKA_VALUE, random, wrapped key)
 * short      give one octet less of the output
 * Calls of C_Initialize, C_Finalize and C_Login are appended to FAULT_CONTROL.log.
 *
 * Every function of the list takes at most 8 arguments of register size, so one trampoline serves
 * all of them under the calling conventions of x86-64 and AArch64.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FUNCTIONS(X) \
    X(0, Initialize) X(1, Finalize) X(2, GetInfo) X(3, GetFunctionList) X(4, GetSlotList) \
    X(5, GetSlotInfo) X(6, GetTokenInfo) X(7, GetMechanismList) X(8, GetMechanismInfo) \
    X(9, InitToken) X(10, InitPIN) X(11, SetPIN) X(12, OpenSession) X(13, CloseSession) \
    X(14, CloseAllSessions) X(15, GetSessionInfo) X(16, GetOperationState) \
    X(17, SetOperationState) X(18, Login) X(19, Logout) X(20, CreateObject) X(21, CopyObject) \
    X(22, DestroyObject) X(23, GetObjectSize) X(24, GetAttributeValue) \
    X(25, SetAttributeValue) X(26, FindObjectsInit) X(27, FindObjects) X(28, FindObjectsFinal) \
    X(29, EncryptInit) X(30, Encrypt) X(31, EncryptUpdate) X(32, EncryptFinal) \
    X(33, DecryptInit) X(34, Decrypt) X(35, DecryptUpdate) X(36, DecryptFinal) \
    X(37, DigestInit) X(38, Digest) X(39, DigestUpdate) X(40, DigestKey) X(41, DigestFinal) \
    X(42, SignInit) X(43, Sign) X(44, SignUpdate) X(45, SignFinal) X(46, SignRecoverInit) \
    X(47, SignRecover) X(48, VerifyInit) X(49, Verify) X(50, VerifyUpdate) X(51, VerifyFinal) \
    X(52, VerifyRecoverInit) X(53, VerifyRecover) X(54, DigestEncryptUpdate) \
    X(55, DecryptDigestUpdate) X(56, SignEncryptUpdate) X(57, DecryptVerifyUpdate) \
    X(58, GenerateKey) X(59, GenerateKeyPair) X(60, WrapKey) X(61, UnwrapKey) X(62, DeriveKey) \
    X(63, SeedRandom) X(64, GenerateRandom) X(65, GetFunctionStatus) X(66, CancelFunction) \
    X(67, WaitForSlotEvent)
#define COUNT 68

typedef unsigned long word;
typedef word (*function)(word, word, word, word, word, word, word, word);
struct list { unsigned char version[2]; function call[COUNT]; };
struct attribute { word type; void *value; word length; };

static const char *const names[COUNT] = {
#define NAME(number, name) "C_" #name,
    FUNCTIONS(NAME)
};

enum fault { NONE, DELAY, FAIL, HANG, CRASH, FLIP, SHORT };
static struct { enum fault fault; word number; long left; } faults[COUNT];
static char control_text[4096];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct list *real, mine;

/* Reads the control file anew if it changed; counts go on otherwise. */
static void read_control(void)
{
    static const char *const words[] = { "none", "delay", "fail", "hang", "crash", "flip", "short" };
    char text[sizeof control_text] = "", *line, *rest = text;
    FILE *file = fopen(getenv("FAULT_CONTROL"), "r");
    if (file) {
        text[fread(text, 1, sizeof text - 1, file)] = 0;
        fclose(file);
    }
    if (!strcmp(text, control_text))
        return;
    strcpy(control_text, text);
    memset(faults, 0, sizeof faults);
    while ((line = strsep(&rest, "\n"))) {
        char name[64], fault[16], number[32] = "0";
        long left = -1;
        if (sscanf(line, "%63s %15s %31s %ld", name, fault, number, &left) < 2)
            continue;
        for (int at = 0; at < COUNT; at++)
            for (int kind = 0; kind < 7; kind++)
                if (!strcmp(name, names[at]) && !strcmp(fault, words[kind])) {
                    faults[at].fault = kind;
                    faults[at].number = strtoul(number, 0, 0);
                    faults[at].left = left;
                }
    }
}

static void note(int at)
{
    char path[4096];
    snprintf(path, sizeof path, "%s.log", getenv("FAULT_CONTROL"));
    FILE *file = fopen(path, "a");
    if (file) {
        fprintf(file, "%s\n", names[at]);
        fclose(file);
    }
}

/* Where a function puts its output. */
static void spoil(int at, enum fault fault, word b, word c, word d, word e, word f)
{
    unsigned char *output = 0;
    word *length = 0, fixed = 0;
    switch (at) {
    case 43: case 30: case 34: output = (void *)d, length = (word *)e; break;
    case 60: output = (void *)e, length = (word *)f; break;
    case 64: output = (void *)b, fixed = c, length = &fixed; break;
    case 24:
        for (word i = 0; i < d; i++) {
            struct attribute *attribute = (struct attribute *)c + i;
            if (attribute->type == 0x11 && attribute->value)
                output = attribute->value, length = &attribute->length;
        }
        break;
    }
    if (!output || !length || !*length)
        return;
    if (fault == FLIP)
        output[*length / 2] ^= 1;
    else
        --*length;
}

static word call(int at, word a, word b, word c, word d, word e, word f, word g, word h)
{
    pthread_mutex_lock(&lock);
    if (at <= 1 || at == 18)
        note(at);
    read_control();
    enum fault fault = faults[at].fault;
    word number = faults[at].number;
    if (faults[at].left > 0)
        faults[at].left--;
    else if (faults[at].left == 0)
        fault = NONE;
    while (fault == HANG && faults[at].fault == HANG) {
        pthread_mutex_unlock(&lock);
        usleep(2000);
        pthread_mutex_lock(&lock);
        read_control();
    }
    pthread_mutex_unlock(&lock);
    if (fault == CRASH)
        abort();
    if (fault == FAIL)
        return number;
    if (fault == DELAY)
        usleep(number);
    word result = real->call[at](a, b, c, d, e, f, g, h);
    if (result == 0 && (fault == FLIP || fault == SHORT))
        spoil(at, fault, b, c, d, e, f);
    return result;
}

#define TRAMPOLINE(number, name) \
    static word proxy_##name(word a, word b, word c, word d, word e, word f, word g, word h) \
    { return call(number, a, b, c, d, e, f, g, h); }
FUNCTIONS(TRAMPOLINE)

word C_GetFunctionList(struct list **out)
{
    void *library = dlopen(getenv("FAULT_MODULE"), RTLD_NOW | RTLD_LOCAL);
    word (*get)(struct list **) = library ? dlsym(library, "C_GetFunctionList") : 0;
    if (!get || get(&real))
        return 5;
    mine.version[0] = real->version[0];
    mine.version[1] = real->version[1];
#define ENTRY(number, name) mine.call[number] = proxy_##name;
    FUNCTIONS(ENTRY)
    mine.call[3] = (function)C_GetFunctionList;
    *out = &mine;
    return 0;
}
