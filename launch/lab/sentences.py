"""What each lab's report says of its results, for words.py: (English, Chinese) by key."""

from __future__ import annotations

MNIST = {
    "mnist_title": ("Handwritten digits: frameworks and tools", "手写数字识别：框架与工具"),
    "by_batch": ("Training at batch sizes 64, 16 and 1", "批大小 64、16、1 的训练"),
    "by_batch_why": (
        "Curves are drawn over epochs, so that equal places have seen equal numbers of images. The "
        "smaller batches are trained for fewer epochs: their steps are many.",
        "横轴为轮数，因此同一位置看过的图像数相同。小批训练的步数多得多，因此轮数较少。",
    ),
    "first_epoch": ("accuracy after 1 epoch", "1 轮后正确率"),
    "per_step": ("ms a step", "毫秒/步"),
    "per_sample": ("us a sample", "微秒/样本"),
    "device_is": ("On the {device}", "{device} 上"),
    "operators": ("The ten busiest operators", "使用率前十名的操作"),
    "operators_at": (
        "Batch {size}, {device}: {step} ms a step",
        "批大小 {size}，{device}：每步 {step} 毫秒",
    ),
    "operator": ("operator", "操作"),
    "self": ("self time, ms", "自身用时（毫秒）"),
    "calls": ("calls", "调用次数"),
    "calls_step": ("calls a step", "每步调用次数"),
    "shares_move": ("Share of the time by operator", "各操作所占时间"),
    "phases": ("Parts of a step", "一步的各部分用时"),
    "with_gpu": ("With and without a GPU", "使用与不使用 GPU"),
    "reached": (
        "Trained for {epochs} epochs at batch 64, the network has {right} of {n} test images right "
        "({top1} %), at a mean loss of {loss}.",
        "批大小 64、训练 {epochs} 轮后，网络在 {n} 张测试图像中判对 {right} 张（{top1} %），平均损失"
        " {loss}。",
    ),
    "dominates": (
        "On the {device} at batch {size}, {first} takes {share} % of the operators' time, and the first "
        "three ({three}) {three_share} %.",
        "在 {device} 上、批大小 {size} 时，{first} 占操作时间的 {share} %，前三名（{three}）共占"
        " {three_share} %。",
    ),
    "moves": (
        "From batch {small} to batch {large} on the {device}, a step takes {steps} times as long "
        "({ms_small} to {ms_large} ms) for {images} times the images: a sample costs {us_small} us at "
        "batch {small} and {us_large} us at batch {large}.",
        "在 {device} 上，批大小从 {small} 增到 {large}，每步用时变为 {steps} 倍（{ms_small} 到"
        " {ms_large} 毫秒），图像数变为 {images} 倍：每个样本从 {us_small} 微秒变为 {us_large} 微秒。",
    ),
    "fixed": (
        "A line through these measurements splits a step into {fixed} ms that are spent whatever the "
        "batch holds and {each} us for each image. At batch 1 the fixed part is {share} % of the step: "
        "starting operators, the optimizer's update of all weights and Python's own work cost the same "
        "for 1 image as for 64. That is why batch 1 is slow.",
        "对这些测量作线性拟合：每步有 {fixed} 毫秒与批大小无关，每张图像另需 {each} 微秒。批大小为 1 时，"
        "固定部分占一步的 {share} %：启动操作、优化器更新全部参数以及 Python 自身的开销，对 1 张图像和"
        " 64 张图像是一样的。这就是批大小为 1 时慢的原因。",
    ),
    "optimizer_share": (
        "At batch 1 the optimizer alone takes {ms} ms of {step} ms a step, at batch {large} {ms_large} "
        "of {step_large} ms.",
        "批大小为 1 时，仅优化器就占每步 {step} 毫秒中的 {ms} 毫秒；批大小为 {large} 时为 {step_large} 毫"
        "秒中的 {ms_large} 毫秒。",
    ),
    "batch_quality": (
        "After one epoch, which is {n} images for all three, accuracy is {values}. One run each: how "
        "much of that is chance, these runs cannot say.",
        "训练一轮（三者都是 {n} 张图像）后，正确率为 {values}。每种只训练一次：其中多少出于偶然，仅凭这些"
        "运行无法判断。",
    ),
    "gpu_faster": (
        "The same training took {cpu} on the CPU and {gpu} on the GPU: {times} times as fast.",
        "同样的训练在 CPU 上用时 {cpu}，在 GPU 上用时 {gpu}：快 {times} 倍。",
    ),
}

TINY = {
    "tiny_title": ("ResNet-18 on Tiny-ImageNet", "ResNet-18 与 Tiny-ImageNet"),
    "arranged": ("The data, with its validation images arranged", "数据与验证集的整理"),
    "arranged_how": (
        "The archive keeps all validation images in one folder, and their classes in "
        "val_annotations.txt. prep reads that file and gives each image its class's number, the same in "
        "both splits; {command} also writes the train/CLASS, val/CLASS folders that other programs read. "
        "The test split has no labels and is left out.",
        "原始压缩包把验证图像放在一个文件夹里，类别写在 val_annotations.txt 中。prep 读取该文件，给每张图"
        "像与训练集一致的类别编号；{command} 还会写出其他程序需要的 train/类别、val/类别 目录。测试集没有"
        "标签，因此不使用。",
    ),
    "devices": ("CPU, one GPU, eight GPUs", "CPU、单 GPU、八 GPU"),
    "efficiency": ("efficiency", "扩展效率"),
    "efficiency_how": (
        "Efficiency is the speed over that of one GPU, divided by the number of GPUs.",
        "扩展效率 = 速度与单 GPU 之比，再除以 GPU 数。",
    ),
    "bound_is": (
        "{name}: bound by {bound}, {share} % of its time; {advice}.",
        "{name}：瓶颈为 {bound}，占用时 {share} %。{advice}",
    ),
    "two": ("Two checkpoints, image by image", "逐图比较两个检查点"),
    "two_how": (
        "Each of two checkpoints of the run {run} is loaded again and scores all {n} validation images "
        "once; the outputs are kept, and the verdicts compared image by image.",
        "重新载入运行 {run} 的两个检查点，各对全部 {n} 张验证图像评分一次；保存输出，并逐图比较判断。",
    ),
    "checkpoint": ("checkpoint", "检查点"),
    "agree": (
        "They agree on {agree} of {n} images ({percent} %). {to_right} went from wrong to right, "
        "{to_wrong} from right to wrong; McNemar's exact p = {p}.",
        "两者对 {n} 张中的 {agree} 张判断一致（{percent} %）。{to_right} 张由错变对，{to_wrong} 张由对变"
        "错；McNemar 精确检验 p = {p}。",
    ),
    "changed": (
        "Images that the two judge differently: {path} has all of them",
        "判断不同的图像：全部见 {path}",
    ),
    "sizes": ("Weights alone", "只保存权重"),
    "sizes_how": (
        "A checkpoint also holds the optimizer's state and the position, to go on from there. The "
        "weights alone, to hand in or to use elsewhere:",
        "检查点还包含优化器状态和训练位置，以便继续训练。只导出权重，用于提交或他处使用：",
    ),
    "file": ("file", "文件"),
    "size": ("size", "大小"),
    "whole": ("the whole checkpoint", "完整检查点"),
    "gap": (
        "{name}: validation loss is lowest at epoch {best} ({least}) and {last} at the end; top-1 at the "
        "end is {train} % on the training images (augmented, while training) and {val} % on the "
        "validation images.",
        "{name}：验证损失在第 {best} 轮最低（{least}），结束时为 {last}；结束时 top-1 在训练图像上为"
        " {train} %（训练中、含增强），在验证图像上为 {val} %。",
    ),
    "overfit": (
        "The validation loss has risen again while the training loss fell: more epochs of this would "
        "learn the training images by heart.",
        "训练损失下降而验证损失回升：继续训练只会记住训练图像。",
    ),
    "no_overfit": (
        "The validation loss has not risen again: no sign of learning by heart within this training.",
        "验证损失没有回升：在这次训练中没有过拟合的迹象。",
    ),
}

CIFAR = {
    "cifar_title": ("CIFAR-10: one change at a time", "CIFAR-10：一次只改变一项"),
    "models": ("Data and networks", "数据与网络"),
    "network_of": ("The network {name}", "网络 {name}"),
    "models_how": (
        "Net is the network of PyTorch's tutorial, SimpleCNN has two 3x3 convolutions of 32 and 64; both "
        "are written in models/cnn.py without torchvision.models.",
        "Net 是 PyTorch 教程的网络，SimpleCNN 有 32 和 64 通道的两层 3x3 卷积；两者都写在 models/cnn.py "
        "中，不使用 torchvision.models。",
    ),
    "trained": ("The two networks, trained as the tutorial has it", "按教程训练的两个网络"),
    "technique": ("setting", "设置"),
    "seconds": ("time, s", "用时（秒）"),
    "quality": ("accuracy, %", "正确率（%）"),
    "rss": ("memory, MB", "内存（MB）"),
    "change_device": ("CPU against GPU", "CPU 与 GPU"),
    "change_batch": ("Batch size", "批大小"),
    "change_rate": ("Learning rate", "学习率"),
    "change_precision": ("Mixed precision", "混合精度"),
    "change_workers": ("Loader workers", "数据加载进程"),
    "change_network": ("BatchNorm, and another network", "BatchNorm 与其他网络"),
    "repeats": (
        "Mean of {n} runs each, plus or minus their standard deviation; memory is the process's peak.",
        "每项为 {n} 次运行的均值 ± 标准差；内存为进程峰值。",
    ),
    "cell_cannot": ("not measured: {reason}", "未测量：{reason}"),
    "time_beyond": (
        "{name} takes {ratio} times as long as {baseline}, a difference beyond the spread of the repeats.",
        "{name} 的用时是 {baseline} 的 {ratio} 倍，差别超出重复实验的离散程度。",
    ),
    "time_within": (
        "{name} takes {ratio} times as long as {baseline}: within the spread of the repeats, so the two "
        "cannot be told apart.",
        "{name} 的用时是 {baseline} 的 {ratio} 倍：在重复实验的离散程度之内，无法区分。",
    ),
    "quality_beyond": (
        "Its accuracy is {by} points {direction}, beyond the spread.",
        "其正确率{direction} {by} 个百分点，超出离散程度。",
    ),
    "quality_within": (
        "Its accuracy differs by {by} points, within the spread.",
        "其正确率相差 {by} 个百分点，在离散程度之内。",
    ),
    "time_open": (
        "{name} takes {ratio} times as long as {baseline}: that may be chance, and more repeats would tell.",
        "{name} 的用时是 {baseline} 的 {ratio} 倍：可能出于偶然，需要更多重复才能判断。",
    ),
    "time_unknown": (
        "{name} takes {ratio} times as long as {baseline}: one run each, so whether that is more than "
        "chance is not known.",
        "{name} 的用时是 {baseline} 的 {ratio} 倍：每项只有一次运行，无法判断是否超出偶然。",
    ),
    "quality_open": (
        "Its accuracy is {by} points {direction}, which may be chance.",
        "其正确率{direction} {by} 个百分点，可能出于偶然。",
    ),
    "quality_unknown": (
        "Its accuracy is {by} points {direction}, without a verdict.",
        "其正确率{direction} {by} 个百分点，无法判断。",
    ),
    "higher": ("higher", "高"),
    "lower": ("lower", "低"),
    "gpu_cells": (
        "For the cells that need a GPU, copy this lab's folder to a machine that has one, type {command} "
        "there, copy the folder back, and type {again} here.",
        "需要 GPU 的部分：把实验目录复制到有 GPU 的机器，在那里运行 {command}，再把目录复制回来，在本机运"
        "行 {again}。",
    ),
    "all_changes": ("All settings in one table", "全部设置汇总"),
    "csv_is": ("The same as a file: {path}.", "同样内容的文件：{path}。"),
}

WIKI = {
    "wiki_title": ("A Transformer language model on WikiText-2", "WikiText-2 上的 Transformer 语言模型"),
    "log": ("The training's log", "训练日志"),
    "log_how": (
        "A line for each {every} steps: loss is the mean of nats a word, ppl its exponential.",
        "每 {every} 步一行：loss 为每词平均损失（nat），ppl 为其指数。",
    ),
    "batch_number": ("batch", "批次"),
    "rate": ("lr", "学习率"),
    "ms_batch": ("ms/batch", "毫秒/批"),
    "ppl": ("perplexity", "困惑度"),
    "per_epoch": ("After each epoch", "每轮之后"),
    "reached_wiki": (
        "After {steps} steps the validation perplexity is {val}; on the test split it is {test}. "
        "Guessing among all {words} words alike would have {words}.",
        "{steps} 步之后，验证集困惑度为 {val}，测试集为 {test}。在全部 {words} 个词中均匀猜测的困惑度为"
        " {words}。",
    ),
    "writes": ("What it writes", "生成的文本"),
    "structure": ("The Transformer's structure", "Transformer 的结构"),
    "context": ("What position t sees: attention beside convolution", "位置 t 看到什么：注意力与卷积"),
    "context_how": (
        "A row is the position whose next word is predicted, a column is a word before it; the darker, "
        "the more of it is read. The first maps are the trained model's own attention on the first words "
        "of the split that it is scored on. The last map is the receptive field of {n} convolutions of "
        "width {width} in a row, each seeing only the past: what a CNN of the same depth could read, and "
        "how often each word enters.",
        "行是要预测下一个词的位置，列是它之前的词；颜色越深，读取越多。前几张图是训练好的模型在评分集最前"
        "面几个词上的注意力。最后一张是连续 {n} 层、宽度 {width}、只看过去的卷积的感受野：同样深度的 CNN "
        "能读到哪些词，以及每个词进入的次数。",
    ),
    "head": ("Attention of layer {layer}, head {head}", "第 {layer} 层第 {head} 个头的注意力"),
    "convolution": (
        "Receptive field of {n} causal convolutions of width {width}",
        "{n} 层宽度 {width} 的因果卷积的感受野",
    ),
    "distance": (
        "Weight by distance, from the last of {bptt} positions, mean of {windows} windows",
        "按距离的权重：从 {bptt} 个位置的最后一个看，{windows} 个窗口的平均",
    ),
    "distance_x": ("words back", "向前的词数"),
    "weight": ("weight", "权重"),
    "beyond": (
        "Layer {layer}, head {head} reads on average {mean} words back; {share} % of its weight lies "
        "further back than the {reach} words that the convolutions reach. Equal weights for all would "
        "give {even_mean} words and {even} %.",
        "第 {layer} 层第 {head} 个头平均向前读 {mean} 个词；{share} % 的权重落在卷积所及的 {reach} 个词之"
        "外。若对所有词权重相等，则为 {even_mean} 个词和 {even} %。",
    ),
    "discussion": (
        "A convolution's weights belong to places: each output reads the same few neighbours, whatever "
        "they say, and only depth lets it see further ({width} words, then {reach}). Attention's weights "
        "are computed from the words themselves: one layer reaches every earlier word, and which ones it "
        "reads changes from word to word, which the unequal rows of the maps show. The price is "
        "arithmetic that grows with the square of the length, and that the order of the words has to be "
        "added to them (the sines and cosines of their positions).",
        "卷积的权重属于位置：每个输出都读同样几个邻居，不管其内容，只有加深层数才能看得更远（先 {width} "
        "个词，再 {reach} 个词）。注意力的权重由词本身算出：一层就能到达之前的任何词，而读哪些词随词而变"
        "，这从图中各行的不同可以看出。代价是计算量随长度平方增长，并且词的顺序要另外加进去（位置的正弦与"
        "余弦）。",
    ),
}
