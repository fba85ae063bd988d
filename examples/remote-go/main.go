// A remote plugin in Go, on grpc-go: twenty blocks of the chain dev, singly and in a batch, with a reorganisation on the way.
//
//	plugin [unix:/run/node.sock]
//
// A node that starts the plugin by itself says by SUPERVM_SOCKET where it listens.
package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"supervm.example/remote/supervm"
)

const (
	last   = 20
	forked = 5 // The block at this height comes twice; the second stays.
)

func id(height uint64, branch string) []byte {
	if height != forked {
		branch = ""
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "block %d%s", height, branch))
	return sum[:]
}

func block(height uint64, branch string) *supervm.BlockMessage {
	return &supervm.BlockMessage{
		Height:     height,
		BlockBytes: fmt.Appendf(nil, "block %d%s", height, branch),
		Hash:       id(height, branch),
		Parent:     id(height-1, " again"),
		Position:   []byte(strconv.FormatUint(height, 10)),
	}
}

// messages are what is to be said by a plugin that has come to a position.
func messages(position uint64) []*supervm.BlockMessage {
	var said []*supervm.BlockMessage
	if position < forked {
		for height := position + 1; height <= forked; height++ {
			said = append(said, block(height, ""))
		}
		said[len(said)-1].Position = nil // To go on behind the block that leaves again would be wrong.
		reorg := &supervm.ReorgMessage{FromHeight: forked, ToHeight: forked - 1, OrphanBlockHashes: [][]byte{id(forked, "")}}
		said = append(said, &supervm.BlockMessage{Body: &supervm.BlockMessage_Reorg{Reorg: reorg}}, block(forked, " again"))
		position = forked
	}
	batch := &supervm.Batch{}
	for height := position + 1; height <= last; height++ {
		batch.Blocks = append(batch.Blocks, block(height, ""))
	}
	line := &supervm.Log{Level: 2, Text: "all blocks are sent"}
	return append(said,
		&supervm.BlockMessage{Body: &supervm.BlockMessage_Batch{Batch: batch}},
		&supervm.BlockMessage{Body: &supervm.BlockMessage_Log{Log: line}},
		&supervm.BlockMessage{Body: &supervm.BlockMessage_EndOfInput{EndOfInput: &supervm.EndOfInput{}}})
}

// send says all there is to say, then beats until it is told to end. grpc-go allows one sender at a time: it is this one.
func send(stream supervm.PluginHost_BlockExchangeClient, said []*supervm.BlockMessage, every time.Duration, ended <-chan struct{}) {
	defer stream.CloseSend()
	for _, message := range said {
		if stream.Send(message) != nil {
			return // Recv answers why.
		}
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ended:
			return
		case <-ticker.C:
			if stream.Send(&supervm.BlockMessage{Body: &supervm.BlockMessage_Beat{Beat: &supervm.Beat{}}}) != nil {
				return
			}
		}
	}
}

func run(address string) error {
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	host := supervm.NewPluginHostClient(connection)

	answer, err := host.Register(context.Background(), &supervm.RegisterRequest{
		Name:         "org.supervm.example-remote-go",
		Version:      "0.1.0",
		Chain:        "dev",
		Capabilities: []string{"block_stream"},
		Revision:     1,
	})
	if err != nil {
		return err
	}
	if !answer.Accepted {
		return fmt.Errorf("the node refused it: %s", answer.Message)
	}
	session := metadata.AppendToOutgoingContext(context.Background(), "supervm-session", answer.SessionToken)
	stream, err := host.BlockExchange(session)
	if err != nil {
		return err
	}
	position, _ := strconv.ParseUint(string(answer.Position), 10, 64) // None is 0.
	ended := make(chan struct{})
	stopped := false
	go send(stream, messages(position), time.Duration(answer.HeartbeatMs)*time.Millisecond/3, ended)
	for {
		message, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		// Acknowledge and Credit are left aside, and so is all that a later revision may say. It has none of the capabilities that
		// let a node ask a question.
		if stop := message.GetStop(); stop != nil && !stopped {
			stopped = true
			log.Printf("the node stops it: %s", stop.Reason)
			close(ended)
		}
	}
}

func main() {
	log.SetFlags(0)
	address := "unix:" + os.Getenv("SUPERVM_SOCKET")
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	if err := run(address); err != nil {
		log.Fatal(err)
	}
}
