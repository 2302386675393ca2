// cri-client makes one call to a container runtime, through the client of the kubelet and crictl. It sends and prints
// CRI's own messages as JSON. For a call that fails it prints the code and the message.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	internalapi "k8s.io/cri-api/pkg/apis"
	v1 "k8s.io/cri-api/pkg/apis/runtime/v1"
	cri "k8s.io/cri-client/pkg"
	"k8s.io/utils/exec"

	"kubestream.test/interop/internal/peer"
)

var (
	endpoint = flag.String("endpoint", "", "the runtime's socket, unix:///PATH")
	call     = flag.String("call", "", "the call, by its name in CRI")
	request  = flag.String("request", "{}", "the request as JSON")
)

// patience is the kubelet's own limit for calls that neither stop nor run anything.
const patience = 10 * time.Second

func main() {
	peer.Start()
	ctx := context.Background()
	runtime, err := cri.NewRemoteRuntimeServiceBuilder().WithEndpoint(*endpoint).WithConnectionTimeout(patience).Build(ctx)
	if err != nil {
		peer.Usage("%v", err)
	}
	images, err := cri.NewRemoteImageServiceBuilder().WithEndpoint(*endpoint).WithConnectionTimeout(patience).Build(ctx)
	if err != nil {
		peer.Usage("%v", err)
	}
	answer, err := run(ctx, runtime, images)
	if err != nil {
		code := status.Code(err)
		if errors.Is(err, cri.ErrCommandTimedOut) {
			code = codes.DeadlineExceeded // which the client has put into words
		}
		peer.Print(map[string]string{"code": code.String(), "error": err.Error()})
		os.Exit(1)
	}
	peer.Print(answer)
}

func run(ctx context.Context, runtime internalapi.RuntimeService, images internalapi.ImageManagerService) (any, error) {
	switch *call {
	case "Version":
		return message(runtime.Version(ctx, "v1"))
	case "Status":
		return message(runtime.Status(ctx, true))
	case "RuntimeConfig":
		return message(runtime.RuntimeConfig(ctx))
	case "RunPodSandbox":
		asked := read(&v1.RunPodSandboxRequest{})
		return id(runtime.RunPodSandbox(ctx, asked.Config, asked.RuntimeHandler))
	case "StopPodSandbox":
		return done(runtime.StopPodSandbox(ctx, read(&v1.StopPodSandboxRequest{}).PodSandboxId))
	case "RemovePodSandbox":
		return done(runtime.RemovePodSandbox(ctx, read(&v1.RemovePodSandboxRequest{}).PodSandboxId))
	case "PodSandboxStatus":
		return message(runtime.PodSandboxStatus(ctx, read(&v1.PodSandboxStatusRequest{}).PodSandboxId, false))
	case "ListPodSandbox":
		return messages(runtime.ListPodSandbox(ctx, read(&v1.ListPodSandboxRequest{}).Filter))
	case "CreateContainer":
		asked := read(&v1.CreateContainerRequest{})
		return id(runtime.CreateContainer(ctx, asked.PodSandboxId, asked.Config, asked.SandboxConfig))
	case "StartContainer":
		return done(runtime.StartContainer(ctx, read(&v1.StartContainerRequest{}).ContainerId))
	case "StopContainer":
		asked := read(&v1.StopContainerRequest{})
		return done(runtime.StopContainer(ctx, asked.ContainerId, asked.Timeout))
	case "RemoveContainer":
		return done(runtime.RemoveContainer(ctx, read(&v1.RemoveContainerRequest{}).ContainerId))
	case "ContainerStatus":
		return message(runtime.ContainerStatus(ctx, read(&v1.ContainerStatusRequest{}).ContainerId, false))
	case "ListContainers":
		return messages(runtime.ListContainers(ctx, read(&v1.ListContainersRequest{}).Filter))
	case "ReopenContainerLog":
		return done(runtime.ReopenContainerLog(ctx, read(&v1.ReopenContainerLogRequest{}).ContainerId))
	case "ListContainerStats":
		return messages(runtime.ListContainerStats(ctx, read(&v1.ListContainerStatsRequest{}).Filter))
	case "ListPodSandboxStats":
		return messages(runtime.ListPodSandboxStats(ctx, read(&v1.ListPodSandboxStatsRequest{}).Filter))
	case "GetContainerEvents":
		return done(runtime.GetContainerEvents(ctx, nil, nil))
	case "ExecSync":
		return execSync(ctx, runtime)
	case "Exec":
		return message(runtime.Exec(ctx, read(&v1.ExecRequest{})))
	case "Attach":
		return message(runtime.Attach(ctx, read(&v1.AttachRequest{})))
	case "PortForward":
		return message(runtime.PortForward(ctx, read(&v1.PortForwardRequest{})))
	case "PullImage":
		return id(images.PullImage(ctx, read(&v1.PullImageRequest{}).Image, nil, nil))
	case "ImageStatus":
		return message(images.ImageStatus(ctx, read(&v1.ImageStatusRequest{}).Image, false))
	case "ListImages":
		return messages(images.ListImages(ctx, read(&v1.ListImagesRequest{}).Filter))
	case "RemoveImage":
		return done(images.RemoveImage(ctx, read(&v1.RemoveImageRequest{}).Image))
	case "ImageFsInfo":
		return message(images.ImageFsInfo(ctx))
	}
	peer.Usage("no call %q", *call)
	return nil, nil
}

// execSync takes the exit code from the error, as the kubelet's probes do.
func execSync(ctx context.Context, runtime internalapi.RuntimeService) (any, error) {
	asked := read(&v1.ExecSyncRequest{})
	stdout, stderr, err := runtime.ExecSync(ctx, asked.ContainerId, asked.Cmd, time.Duration(asked.Timeout)*time.Second)
	code := 0
	if exit, ok := err.(exec.CodeExitError); ok {
		code, err = exit.Code, nil
	}
	return map[string]any{"stdout": string(stdout), "stderr": string(stderr), "exitCode": code}, err
}

func read[M proto.Message](into M) M {
	if err := protojson.Unmarshal([]byte(*request), into); err != nil {
		peer.Usage("-request: %v", err)
	}
	return into
}

func message[M proto.Message](answer M, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	line, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(answer)
	return json.RawMessage(line), err
}

func messages[M proto.Message](answers []M, err error) (any, error) {
	all := []any{}
	for _, answer := range answers {
		one, err := message(answer, nil)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, err
}

func id(id string, err error) (any, error) {
	return map[string]string{"id": id}, err
}

func done(err error) (any, error) {
	return map[string]any{}, err
}
