// A plugin in Go: a goroutine publishes ten blocks of the chain dev. Go's libraries never leave a process, so that it runs in a
// process of its own only.
package main

/*
#include <stdlib.h>
#include "glue.h"
*/
import "C"

import (
	"fmt"
	"unsafe"
)

const manifest = `{"id": "org.supervm.example-go", "name": "Go example", "version": "0.1.0", "chain": "dev", "capabilities": ["block_stream"]}`

var stop = make(chan struct{})
var done = make(chan struct{})

func work() {
	defer close(done)
	for height := 1; height <= 10; height++ {
		select {
		case <-stop:
			return
		default:
		}
		payload := C.CString(fmt.Sprintf("block %d, from Go", height))
		status := C.publish(C.uint64_t(height), payload)
		C.free(unsafe.Pointer(payload))
		if status != 0 {
			return
		}
	}
	C.end_of_input()
}

//export plugin_get_manifest_json
func plugin_get_manifest_json() *C.char { return C.CString(manifest) }

//export plugin_free_string
func plugin_free_string(text *C.char) { C.free(unsafe.Pointer(text)) }

//export plugin_init
func plugin_init(vtable unsafe.Pointer) C.int { return C.remember(vtable) }

//export plugin_start
func plugin_start() C.int {
	text := C.CString("hello from Go")
	C.say(text)
	C.free(unsafe.Pointer(text))
	go work()
	return 0
}

//export plugin_stop
func plugin_stop() C.int {
	close(stop)
	<-done
	return 0
}

func main() {}
