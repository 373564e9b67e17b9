using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Training.Recipes;
using Headroom.Training.Runs;

namespace Headroom.EndToEnd;

/// <summary>
/// A device that fails in the middle of a run: what it did last, the checkpoint to go on from, an event, an exit code.
/// </summary>
public class DeviceFaultTests
{
    private const string Fault =
            "cuLaunchKernel of rms_norm failed: CUDA_ERROR_ILLEGAL_ADDRESS; the last operation issued before it was "
                + "product 512x64x64.",
        Hint = "If it happens again, run headroom doctor.";

    // A CPU whose micro-step of a number fails as a GPU's does.
    private sealed class Failing(int at) : IDevice, IReplaysSteps
    {
        private readonly CpuDevice _cpu = new(1);
        private int _steps;
        public string Name => _cpu.Name;
        public IOps Ops => _cpu.Ops;
        public long WorkspaceBytes => _cpu.WorkspaceBytes;
        public nint Reserve(long bytes, long later = 0) => _cpu.Reserve(bytes, later);
        public void Upload(ReadOnlySpan<byte> source, Tensor destination) => _cpu.Upload(source, destination);
        public void Download(Tensor source, Span<byte> destination) => _cpu.Download(source, destination);
        public void Dispose() => _cpu.Dispose();
        public StepReplay Replay(double flops, long calls, DType compute) => default;

        public StepStart Begin(in StepShape shape, in StepReplay replay, uint dropoutStep, float gradScale)
        {
            if (++_steps == at) throw new DeviceException("cuLaunchKernel of rms_norm", Fault, Hint);
            return StepStart.Issue;
        }

        public bool EndRecord(Exception? failure) => false;
    }

    // Two micro-steps are a step; a checkpoint is written after every second one.
    [Theory, InlineData(5, 2), InlineData(3, 1)]
    public void NamesTheOperationAndTheCheckpoint(int microStep, int steps)
    {
        using var cli = new Cli();
        var recipe = RecipeLoader.Load(cli.Recipe(Cli.Base("llama-tiny")), ["training.save_strategy=steps"]);
        (recipe.Data.Train, recipe.Data.Test) = (
            Path.Combine(cli.Folder, "train.jsonl"), Path.Combine(cli.Folder, "test.jsonl"));
        string folder = Path.Combine(cli.Folder, "runs", "fault"),
            checkpoint = Path.Combine(folder, "checkpoints", "checkpoint-2");
        RunHost Host(bool resume, IDevice device) =>
            new(folder, resume, () => device, null, _ => { }, (_, _, _, _) => { });
        var e = Assert.Throws<HeadroomException>(() =>
            TrainRun.Run(
                recipe, "", recipe.Models[0], Host(false, new Failing(microStep)), TestContext.Current.CancellationToken
            )
        );
        Assert.Equal(1, e.ExitCode);
        Assert.Equal($"After step {steps}: {Fault}", e.Message);
        Assert.Equal(
            (
                steps == 2
                    ? $"The last good checkpoint is {checkpoint}: go on with --resume. "
                    : "No checkpoint was written before: start the run anew. "
            ) + Hint,
            e.ToDo
        );
        // what --verbose prints
        Assert.Contains(nameof(Failing.Begin), Assert.IsType<DeviceException>(e.InnerException).StackTrace);
        var events = File.ReadLines(Path.Combine(folder, "events.jsonl")).Select(l => JsonNode.Parse(l)!).ToList();
        var failed = events[^1];
        Assert.Equal(
            ("failed", steps, "cuLaunchKernel of rms_norm", Fault),
            ((string?)failed["event"], (int)failed["at_step"]!, (string?)failed["call"], (string?)failed["error"]));
        if (steps != 2) return;
        Assert.True(
            TrainRun
                .Run(recipe, "", recipe.Models[0], Host(true, new CpuDevice(1)), TestContext.Current.CancellationToken)
                .Completed
        );
    }
}
