// What the tests of Go functions run: one handler that does what its event says.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type event struct {
	Act   string      `json:"act"`
	Value interface{} `json:"value"`
}

type refused struct{ text string }

func (e *refused) Error() string { return e.text }

func seen(ctx context.Context) map[string]interface{} {
	known, _ := lambdacontext.FromContext(ctx)
	deadline, _ := ctx.Deadline()
	return map[string]interface{}{
		"request_id": known.AwsRequestID,
		"arn":        known.InvokedFunctionArn,
		"custom":     known.ClientContext.Custom,
		"name":       lambdacontext.FunctionName,
		"version":    lambdacontext.FunctionVersion,
		"memory":     lambdacontext.MemoryLimitInMB,
		"group":      lambdacontext.LogGroupName,
		"stream":     lambdacontext.LogStreamName,
		"left_ms":    time.Until(deadline).Milliseconds(),
		"trace":      os.Getenv("_X_AMZN_TRACE_ID"),
	}
}

func handle(ctx context.Context, asked event) (interface{}, error) {
	switch asked.Act {
	case "echo":
		return asked.Value, nil
	case "context":
		return seen(ctx), nil
	case "error":
		return nil, &refused{"not so"}
	case "panic":
		panic("in the middle")
	case "exit":
		os.Exit(3)
	case "log":
		fmt.Println("printed")
		log.SetFlags(0)
		log.Print("logged")
	case "sleep":
		<-ctx.Done() // the deadline comes before the timeout ends it, or does not
		select {}
	case "pid":
		return os.Getpid(), nil
	}
	return nil, nil
}

func main() { lambda.Start(handle) }
