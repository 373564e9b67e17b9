using Headroom.Core;
using Headroom.Training.Events;
using Headroom.Training.Loop;

namespace Headroom.Training.Runs;

/// <summary>
/// The end of a run that failed: the event <c>failed</c> with its reason, and words that name the checkpoint to go on
/// from.
/// </summary>
internal static class RunFailure
{
    /// <summary>
    /// Writes the event, when that can still be done, and gives what is thrown in the place of <paramref name="e"/>;
    /// null = itself.
    /// </summary>
    /// <param name="e">Whatever ended the run, but a stop.</param>
    /// <param name="log">The run's log.</param>
    /// <param name="step">Updates done.</param>
    /// <param name="checkpoints">The run's folder of checkpoints.</param>
    public static HeadroomException? Describe(Exception e, EventLog log, int step, string checkpoints)
    {
        while (e is AggregateException { InnerExceptions.Count: 1 } several) e = several.InnerException!;
        var told = Told(e, step, GoOn(checkpoints));
        try
        {
            log.Write(new FailedEvent(
                step, (e as DeviceException)?.Call,
                e is HeadroomException ? e.Message : told?.Message ?? $"{e.GetType().Name}: {e.Message}",
                (told ?? e as HeadroomException)?.ToDo));
        }
        catch (HeadroomException)
        {
            // the log is part of what failed; the console says it
        }
        return told;
    }

    private static HeadroomException? Told(Exception e, int step, string goOn) => e switch
    {
        DeviceException d => new(At(step) + d.Message, $"{goOn} {d.ToDo}", 1, d),
        OutOfMemoryException => new(
            $"{At(step)}There is not enough memory.", $"{goOn} Give it more memory, or a --vram budget.", 1, e),
        _ when DiskFault.IsFull(e) => new(At(step) + e.Message, $"Free some space. {goOn}", 1, e),
        _ when DiskFault.Find(e) != null => new(At(step) + e.Message, $"Look after the disk. {goOn}", 1, e),
        _ => null,
    };

    private static string At(int step) => step == 0 ? "" : $"After step {step}: ";

    private static string GoOn(string checkpoints)
    {
        try
        {
            if (Checkpoints.Latest(checkpoints) is { } good)
                return $"The last good checkpoint is {good}: go on with --resume.";
        }
        catch (Exception e) when (DiskFault.Find(e) != null)
        {
            return "Go on with --resume when the run folder can be read again.";
        }
        return "No checkpoint was written before: start the run anew.";
    }
}
