using Headroom.Core;
using Headroom.Cpu;
using Headroom.Inference;
using Headroom.Tests.Models;
using Headroom.Training.Data;
using Headroom.Training.Loop;
using Headroom.Training.Recipes;
using Headroom.Training.Runs;

namespace Headroom.Tests.Loop;

/// <summary>training.precision on devices that have bf16, only fp16, or neither.</summary>
public class PrecisionTests
{
    // A device of another type of activations, of which no micro-step is run.
    private sealed class Preferring(DType preferred) : IDevice, IReplaysSteps
    {
        private readonly CpuDevice _cpu = new(1);
        public List<float> GradScales { get; } = [];
        public string Name => "Card";
        public DType PreferredCompute => preferred;
        public IOps Ops => _cpu.Ops;
        public long WorkspaceBytes => _cpu.WorkspaceBytes;
        public nint Reserve(long bytes, long later = 0) => _cpu.Reserve(bytes, later);
        public void Upload(ReadOnlySpan<byte> source, Tensor destination) => _cpu.Upload(source, destination);
        public void Download(Tensor source, Span<byte> destination) => _cpu.Download(source, destination);
        public StepReplay Replay(double flops, long calls, DType compute) => default;

        public StepStart Begin(in StepShape shape, in StepReplay replay, uint dropoutStep, float gradScale)
        {
            GradScales.Add(gradScale);
            return StepStart.Replayed;
        }

        public bool EndRecord(Exception? failure) => false;
        public void Dispose() => _cpu.Dispose();
    }

    private static Recipe With(string precision)
    {
        var recipe = new Recipe();
        recipe.Training.Precision = Choices.Parse<Precision>("training.precision", precision);
        return recipe;
    }

    private static DType Chosen(string precision, DType preferred)
    {
        using var source = new RandomSource(TinyModel.Small());
        using var device = new Preferring(preferred);
        return RunSettings.Choose(With(precision), source, device).ComputeType;
    }

    [Theory]
    [InlineData(DType.BF16, "auto", DType.BF16)]
    [InlineData(DType.BF16, "bf16", DType.BF16)]
    [InlineData(DType.BF16, "fp16", DType.F16)]
    [InlineData(DType.BF16, "fp32", DType.F32)]
    [InlineData(DType.F16, "auto", DType.F16)]
    [InlineData(DType.F16, "fp16", DType.F16)]
    [InlineData(DType.F16, "fp32", DType.F32)]
    [InlineData(DType.F32, "auto", DType.F32)]
    [InlineData(DType.F32, "fp32", DType.F32)]
    internal void AutoIsWhatTheDevicePrefers(DType preferred, string precision, DType expected) =>
        Assert.Equal(expected, Chosen(precision, preferred));

    [Theory]
    [InlineData(
        DType.F16, "bf16", "training.precision is bf16, but Card does not compute in it.",
        "Set training.precision to auto or fp16.")]
    [InlineData(
        DType.F32, "bf16", "training.precision is bf16, but the CPU computes in fp32.",
        "Set training.precision to auto or fp32, or use a GPU.")]
    [InlineData(
        DType.F32, "fp16", "training.precision is fp16, but the CPU computes in fp32.",
        "Set training.precision to auto or fp32, or use a GPU.")]
    [InlineData(DType.BF16, "fp8", "training.precision 'fp8' is unknown.", "Use auto, fp32, bf16 or fp16.")]
    internal void WhatTheDeviceHasNotIsRefused(DType preferred, string precision, string message, string toDo)
    {
        var e = Assert.Throws<HeadroomException>(() => Chosen(precision, preferred));
        Assert.Equal((message, toDo, 2), (e.Message, e.ToDo, e.ExitCode));
    }

    [Fact]
    public void AutoOnADeviceWithoutBf16ScalesTheLoss()
    {
        foreach (var preferred in new[] { DType.F16, DType.BF16 })
        {
            var source = new RandomSource(TinyModel.Small());
            var device = new Preferring(preferred);
            var settings = RunSettings.Choose(With("auto"), source, device);
            using var engine = new Engine(device, source, settings, new BatchLimits(32, 2, 32));
            var rows = new RowList(TinyModel.Rows(source.Config, [9, 12]));
            var options = new TrainingOptions
            {
                PerDeviceTrainBatchSize = 2,
                GradientAccumulationSteps = 1,
                MaxSteps = 1,
            };
            using var feed = new BatchFeed(rows, options, 12, 0, 1);
            var window = feed.Next();
            var step = new Trainer(engine, options, rows, 12).Step(window);
            double? scale = preferred == DType.F16 ? LossScale.Start.Scale : null;
            Assert.Equal(scale, step.LossScale);
            Assert.Equal([(float)((scale ?? 1) / window.LabelCount)], device.GradScales);
            feed.Recycle(window);
        }
    }
}
