// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/meshtap/meshtap/eventtap/event"
)

// names returns the topics that the sink writes to, each once.
func (s *Sink) names() []string {
	out := slices.Clone(s.topics[event.Request:])
	if s.cfg.DeadLetter != "" {
		out = append(out, s.cfg.DeadLetter)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// findTopics asks for the topics, creates those that are missing, and learns how large their batches may be.
func (s *Sink) findTopics(ctx context.Context, client *kgo.Client) error {
	names := s.names()
	missing, err := s.missing(ctx, client, names)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		if s.cfg.Create == nil {
			return fmt.Errorf("kafka: the topic %s does not exist; create it, or set create_topic", missing[0])
		}
		if err := s.create(ctx, client, missing); err != nil {
			return err
		}
	}
	s.learnLimits(ctx, client, names)
	return nil
}

func (s *Sink) missing(ctx context.Context, client *kgo.Client, names []string) (missing []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	for _, n := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(n)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %v from %q", askTimeout, s.cfg.Brokers)
		}
		return nil, fmt.Errorf("kafka: %w", s.explain(err))
	}
	for _, t := range resp.Topics {
		switch err := kerr.ErrorForCode(t.ErrorCode); {
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			missing = append(missing, *t.Topic)
		case err != nil && !kerr.IsRetriable(err):
			return nil, fmt.Errorf("kafka: topic %s: %w", *t.Topic, s.advise(err))
		}
	}
	return missing, nil
}

func (s *Sink) create(ctx context.Context, client *kgo.Client, names []string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = int32(askTimeout.Milliseconds())
	for _, n := range names {
		t := kmsg.NewCreateTopicsRequestTopic()
		t.Topic, t.NumPartitions, t.ReplicationFactor = n, -1, -1
		if c := s.cfg.Create; c.Partitions > 0 {
			t.NumPartitions = c.Partitions
		}
		if c := s.cfg.Create; c.Replicas > 0 {
			t.ReplicationFactor = c.Replicas
		}
		if c := s.cfg.Create; c.Retention > 0 {
			t.Configs = append(t.Configs, kmsg.CreateTopicsRequestTopicConfig{
				Name: "retention.ms", Value: kmsg.StringPtr(strconv.FormatInt(c.Retention.Milliseconds(), 10))})
		}
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return fmt.Errorf("kafka: create topics: %w", s.explain(err))
	}
	for _, t := range resp.Topics {
		err := kerr.ErrorForCode(t.ErrorCode)
		if err == nil || errors.Is(err, kerr.TopicAlreadyExists) {
			continue
		}
		if t.ErrorMessage != nil {
			err = fmt.Errorf("%w: %s", err, *t.ErrorMessage)
		}
		return fmt.Errorf("kafka: create the topic %s: %w", t.Topic, err)
	}
	return nil
}

// learnLimits asks for the topics' max.message.bytes, so that the client cuts its batches by it: of a batch that the broker
// finds too large, all events are refused. It may not be allowed to know; then Kafka's default holds.
func (s *Sink) learnLimits(ctx context.Context, client *kgo.Client, names []string) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	const setting = "max.message.bytes"
	req := kmsg.NewPtrDescribeConfigsRequest()
	for _, n := range names {
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName, r.ConfigNames = kmsg.ConfigResourceTypeTopic, n, []string{setting}
		req.Resources = append(req.Resources, r)
	}
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return
	}
	limits := map[string]int32{}
	for _, r := range resp.Resources {
		for _, c := range r.Configs {
			if c.Name != setting || c.Value == nil {
				continue
			}
			if n, err := strconv.ParseInt(*c.Value, 10, 32); err == nil {
				limits[r.ResourceName] = int32(min(max(n, minBatch), maxBatch))
			}
		}
	}
	s.limits.Store(&limits)
}
