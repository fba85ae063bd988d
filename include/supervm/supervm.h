/* supervm/supervm.h - everything a plugin author may include, in one. */
#ifndef SUPERVM_SUPERVM_H
#define SUPERVM_SUPERVM_H

#include "block_sink.h"
#include "config.h"
#include "heartbeat.h"
#include "net.h"
#include "plugin.h"
#include "resume.h"
#include "status.h"

#endif
