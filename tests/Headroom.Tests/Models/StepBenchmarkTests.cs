using Headroom.Core;
using Headroom.Cpu;
using Headroom.Training.Measure;

namespace Headroom.Tests.Models;

/// <summary>The step benchmark measures what the plan counts.</summary>
public class StepBenchmarkTests
{
    [Theory, InlineData(0, false), InlineData(-1, true)]
    public void EveryCountedOpIsTimedAndNoneBeatsItsFloor(int recompute, bool answerOnly)
    {
        var stepping = new List<bool>();
        var result = StepBenchmark.Run(
            new CpuDevice(2), TinyModel.Small(),
            new StepBenchmarkOptions(2, 40, recompute, DType.F32, Steps: 2, R: 4, AnswerOnly: answerOnly),
            stepping: stepping.Add);
        Assert.Equal([true, false], stepping);
        Assert.Equal(3 + 2 + 1, result.MicroSteps);
        Assert.Equal(80 / result.StepMilliseconds * 1000, result.TokensPerSecond, 6);
        Assert.InRange(result.Loss, 4, 7); // ln 200 = 5.3
        Assert.InRange(result.Utilisation, 1e-6, 1);
        Assert.True(result.PlannedBytes > CpuOps.WorkspaceBytes(2));
        Assert.Null(result.Memory);
        var times = result.Ops.ToDictionary(o => o.Op);
        // 3 layers: four groups (q k v, o, gate up, down) each way, down's gradient in one with swiglu's; a recomputed
        // layer runs all but down a second time, and the last layer need not.
        Assert.Equal(recompute == 0 ? 12 : 18, times["linear"].Calls);
        Assert.Equal(9, times["linear_backward_input"].Calls);
        Assert.Equal(3, times["down_swiglu_backward"].Calls);
        Assert.Equal(3, times["attention_backward"].Calls);
        Assert.Equal(recompute == 0 ? 3 : 5, times["attention"].Calls);
        Assert.Equal(3, times["swiglu"].Calls);
        foreach (
            string op in new[]
            {
                "linear", "linear_backward_input", "attention", "down_swiglu_backward", "rms_norm",
                "linear_cross_entropy",
            }
        )
            Assert.True(times[op].FloorMilliseconds > 0, op);
        Assert.True(times["adamw"].Milliseconds > 0);
    }

    [Fact]
    public void RaggedBatchesCountTheTokensTheyHold()
    {
        var result = StepBenchmark.Run(
            new CpuDevice(2), TinyModel.Small(1),
            new StepBenchmarkOptions(2, 256, 0, DType.F32, Steps: 5, R: 4, AnswerOnly: true, Ragged: true));
        // a mean of batches, of which not every one is full
        Assert.InRange(result.TokensPerSecond * result.StepMilliseconds / 1000, 2 * 16, 2 * 256 - 0.01);
        Assert.Empty(result.Ops);
        Assert.Equal(96 + 5 + 1, result.MicroSteps);
    }
}
