/* Reads well-formed JSON in place: a value is the piece of text that it is written with. */
#ifndef JSON_H
#define JSON_H

#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *at;
    size_t length;
} json;

static inline const char *json_space(const char *p, const char *end)
{
    while (p < end && strchr(" \t\r\n,:", *p))
        p++;
    return p;
}

/* The end of the value that begins at p. */
static inline const char *json_skip(const char *p, const char *end)
{
    int depth = 0;
    do {
        if (*p == '"') {
            for (p++; p < end && *p != '"'; p++)
                p += *p == '\\';
            p++;
        } else if (*p == '{' || *p == '[') {
            depth++;
            p++;
        } else if (*p == '}' || *p == ']') {
            depth--;
            p++;
        } else if (depth) {
            p++;
        } else {
            while (p < end && !strchr(" \t\r\n,:]}", *p))
                p++;
        }
    } while (depth && p < end);
    return p;
}

/* The next element of an array, or key or value of an object; `position` starts as 0. Its `at` is NULL at the end. */
static inline json json_next(json container, size_t *position)
{
    json none = {NULL, 0};
    if (!container.at || (*container.at != '{' && *container.at != '['))
        return none;
    const char *end = container.at + container.length;
    const char *p = json_space(container.at + (*position ? *position : 1), end);
    if (p >= end || *p == '}' || *p == ']')
        return none;
    json value = {p, 0};
    p = json_skip(p, end);
    value.length = (size_t)(p - value.at);
    *position = (size_t)(p - container.at);
    return value;
}

static inline json json_get(json object, const char *key)
{
    size_t position = 0;
    for (;;) {
        json name = json_next(object, &position);
        json value = name.at ? json_next(object, &position) : name;
        if (!name.at || (name.length == strlen(key) + 2 && !memcmp(name.at + 1, key, name.length - 2)))
            return value;
    }
}

/* A copy of the text of a string, or of any other value as it is written; NULL for nothing. */
static inline char *json_text(json value)
{
    if (!value.at)
        return NULL;
    char *text = malloc(value.length + 1), *out = text;
    const char *p = value.at, *end = p + value.length;
    if (*p != '"') {
        memcpy(text, p, value.length);
        text[value.length] = 0;
        return text;
    }
    for (p++; p < end - 1; p++) {
        if (*p != '\\') {
            *out++ = *p;
            continue;
        }
        switch (*++p) {
        case 'n': *out++ = '\n'; break;
        case 't': *out++ = '\t'; break;
        case 'r': *out++ = '\r'; break;
        case 'b': *out++ = '\b'; break;
        case 'f': *out++ = '\f'; break;
        case 'u': {
            char digits[5] = {p[1], p[2], p[3], p[4], 0};
            unsigned long code = strtoul(digits, NULL, 16);
            p += 4;
            if (code < 0x80) {
                *out++ = (char)code;
            } else if (code < 0x800) {
                *out++ = (char)(0xc0 | code >> 6);
                *out++ = (char)(0x80 | (code & 0x3f));
            } else {
                *out++ = (char)(0xe0 | code >> 12);
                *out++ = (char)(0x80 | (code >> 6 & 0x3f));
                *out++ = (char)(0x80 | (code & 0x3f));
            }
            break;
        }
        default: *out++ = *p;
        }
    }
    *out = 0;
    return text;
}

#endif
